"""`wattledger doctor`: what is wrong with this installation, and what to do about it."""

from typing import Annotated

import typer

from infra import logs
from infra.bootstrap import find
from infra.doctor import examine
from infra.settings import Settings
from interfaces.cli.output import AsJson, show


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as faults.")] = False,
    as_json: AsJson = False,
) -> None:
    """Looks at database, broker, keys, clock, partitions, queues and settings. Example: wattledger doctor --json

    Each fault comes with its remedy. Exit status 1 when there is one. Run it where a process of ours would run, with
    the same settings; it leaves nothing behind.
    """
    settings = Settings()
    logs.configure("CRITICAL")
    findings = list(examine(find(settings), settings))
    show(findings, as_json)
    bad = {"fault", "warning"} if strict else {"fault"}
    if any(finding.verdict in bad for finding in findings):
        raise typer.Exit(1)
