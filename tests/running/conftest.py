"""Programs on the session's servers; whatever still runs when a test ends is killed."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from application.context import Metadata, acting
from infra.bootstrap import Where, assembled
from infra.operator_keys import OperatorKey
from infra.settings import Settings
from tests.access_log import access_log
from tests.ports import free_port
from tests.soak.installation import Program, environment_of


@dataclass
class Programs:
    """`wattledger` commands on one database and broker; `key` is the operator's."""

    url: str
    amqp_url: str
    logs: Path
    key: OperatorKey = field(default_factory=OperatorKey.random)
    made: list[Program] = field(default_factory=list)

    def serve(self, **settings: Any) -> tuple[Program, str]:
        """Not started yet, with the URL that it will have."""
        port = free_port()
        return self._program(["serve"], port, http_port=port, **settings), f"http://127.0.0.1:{port}"

    def work(self, **settings: Any) -> Program:
        return self._program(["work"], None, **settings)

    def where(self) -> Where:
        return Where(self.url, self.amqp_url, [self.key], ["127.0.0.0/8"])

    def organisation(self, slug: str) -> str:
        """An admin's key of a new one."""
        with assembled(self.where(), Settings()) as parts, acting(Metadata(actor="cli", source="cli")):
            created = parts.organisations.create(slug)
            return parts.organisations.mint_key(created.id, "admin", ["trading:admin"]).api_key

    def told(self) -> str:
        """All that they logged."""
        return "".join(path.read_text() for path in sorted(self.logs.iterdir()))

    def _program(self, words: list[str], port: int | None, **settings: Any) -> Program:
        environment = environment_of(self.url, self.amqp_url, self.key, log_level="INFO", **settings)
        program = Program(words, environment, self.logs / f"{words[0]}-{len(self.made)}.log", port)
        self.made.append(program)
        return program


@pytest.fixture
def programs_on(tmp_path: Path) -> Iterator[Callable[[str, str], Programs]]:
    made: list[Programs] = []

    def on(url: str, amqp_url: str) -> Programs:
        logs = tmp_path / f"logs-{len(made)}"
        logs.mkdir()
        made.append(Programs(url, amqp_url, logs))
        return made[-1]

    yield on
    for programs in made:
        for program in programs.made:
            with suppress(OSError):
                program.kill()
            access_log.read(program.log)
        shutil.rmtree(programs.logs)


@pytest.fixture
def programs(programs_on: Callable[[str, str], Programs], database_url: str, amqp_url: str) -> Programs:
    return programs_on(database_url, amqp_url)
