"""The access log of every API that tests serve or start: no answer in it may be a 500, but where a test wants one."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WANTED = "wants-a-500"
"""The X-Request-Id of a request that is meant to be answered so."""


@dataclass
class AccessLog:
    """How many answers it has seen, and which of them were a 500."""

    answers: int = 0
    failed: list[str] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)

    def note(self, line: dict[str, Any]) -> None:
        self.answers += 1
        if line["status"] == 500:
            seen = self.wanted if line["request_id"] == WANTED else self.failed
            seen.append(f"{line['method']} {line['path']} ({line['request_id']})")

    def read(self, log: Path) -> None:
        """What a process of its own has logged; it is gone by now, so its last line may be cut."""
        for text in log.read_text(errors="replace").splitlines() if log.exists() else ():
            if '"event": "request"' in text and text.endswith("}"):
                self.note(json.loads(text))


access_log = AccessLog()


class _Watch(logging.Filter):
    """Sees each line of this process, and lets through what would have been logged without it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.getMessage() == "request":
            access_log.note(vars(record))
        return logging.getLogger().isEnabledFor(record.levelno)


@contextmanager
def watched() -> Iterator[AccessLog]:
    logger, watch = logging.getLogger("interfaces.http.edge"), _Watch()
    logger.setLevel(logging.INFO)
    logger.addFilter(watch)
    try:
        yield access_log
    finally:
        logger.removeFilter(watch)
        logger.setLevel(logging.NOTSET)
