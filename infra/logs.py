"""Structured logs: one sentence plus fields, as text for people or as JSON lines for machines; no secret gets in."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import stamina
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from application.context import current_request, current_task
from infra.redaction import redacted_value


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """After the exception has become text, before the line does."""
    told: EventDict = redacted_value(event)
    return told


def _tell_whose(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Every line of a request, a message or a job names it, and who acts; also those of libraries."""
    task = current_task.get()
    told = {"request_id": current_request.get()} if task is None else vars(task.metadata)
    for name in ("request_id", "actor", "correlation_id", "traceparent"):
        if event.get(name) is None and told.get(name) is not None:
            event[name] = told[name]
    return event


_PROCESSORS: Sequence[Processor] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    _tell_whose,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
# They speak of every request or connection at INFO, and pika of each lost connection with a traceback at ERROR.
_QUIET = {
    "uvicorn": logging.WARNING,
    "apscheduler": logging.WARNING,
    "httpx": logging.WARNING,
    "stamina": logging.ERROR,
}


def configure(level: str) -> None:
    """Sends all logs to standard error: JSON lines unless it is a terminal."""
    _install(logging.StreamHandler(sys.stderr), level, readable=sys.stderr.isatty())


def configure_file(level: str, path: Path) -> None:
    """Sends all logs to a file, as JSON lines."""
    _install(logging.FileHandler(path, encoding="utf-8"), level, readable=False)


def _install(handler: logging.Handler, level: str, *, readable: bool) -> None:
    renderer = (
        structlog.dev.ConsoleRenderer(colors=False) if readable else structlog.processors.JSONRenderer(sort_keys=True)
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_PROCESSORS,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _redact, renderer],
        )
    )
    handler.setLevel(level)
    # Its own lines about retries print whole arguments, a partner's payload among them.
    stamina.instrumentation.set_on_retry_hooks([])
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)
