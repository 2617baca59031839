"""Runs commands in this process."""

import logging
from collections.abc import Callable

import pytest

from infra.operator_keys import OperatorKey
from interfaces.cli import main

Run = Callable[..., str]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process and returns what it printed; `status` is what it must exit with."""
    # Commands set up the logs of their process, which here is everybody's.
    monkeypatch.setattr(logging.getLogger(), "handlers", logging.getLogger().handlers)
    monkeypatch.setattr(logging.getLogger(), "level", logging.getLogger().level)
    monkeypatch.setenv("WATTLEDGER_DATABASE_URL", database_url)
    monkeypatch.setenv("WATTLEDGER_SECRET_KEYS", str(OperatorKey.random()))

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["wattledger", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == status, said.err
        return said.err if status == 2 else said.out

    return run
