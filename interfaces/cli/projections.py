"""Commands about the read models and the other slots that follow the log."""

import typer

from interfaces.cli.output import AsJson, show
from interfaces.cli.session import parts
from projections.follower import slot_statuses

app = typer.Typer(help="The read models and the other slots that follow the event log.", no_args_is_help=True)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Shows each slot's position, its lag in events and whether it is parked. Example: wattledger projections status"""
    with parts() as assembly, assembly.connect() as connection:
        show(slot_statuses(connection), as_json)
