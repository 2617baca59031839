"""Commands about day plans: the time blocks of a plant's configuration."""

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer

from application.plan_check import check_plan, clock_changes
from infra.settings import Settings
from interfaces.cli.output import AsJson, print_json

app = typer.Typer(help="Day plans.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `check` a command of its own name though it is the only one."""


@app.command()
def check(
    file: Annotated[
        Path, typer.Argument(help="JSON: an array of blocks, or what POST or GET …/config takes or gives.")
    ],
    on: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Also tell how it falls on this day, YYYY-MM-DD.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Checks a day plan by the rules of the API, before it is sent; exit status 1 if it breaks one.

    Example: wattledger plans check plan.json --on 2026-03-29

    Times are the plant's wall clock (WATTLEDGER_PLANT_TIME_ZONE). A day on which the clocks change needs no plan of its
    own: when they go forward (23 hours), a block loses the minutes that are skipped, and one that lies wholly in them
    does not occur; when they go back (25 hours), the minutes that come twice belong to their block both times. --on
    tells which blocks that concerns.
    """
    try:
        plan = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{file} is no JSON: {error}") from None
    checked = check_plan(plan)
    days = clock_changes(checked.blocks, on.date(), Settings().plant_clock) if on and not checked.findings else []
    if as_json:
        findings = [dataclasses.asdict(finding) for finding in checked.findings]
        print_json({"ok": not findings, "blocks": len(checked.blocks), "findings": findings, "clockChanges": days})
    else:
        lines = [*map(str, checked.findings), *days] or [f"A sound plan of {len(checked.blocks)} blocks."]
        typer.echo("\n".join(lines))
    if checked.findings:
        raise typer.Exit(1)
