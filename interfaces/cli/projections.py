"""Commands about the read models and the other slots that follow the log."""

from functools import partial
from typing import Annotated, Any

import typer

from domain.errors import NotFound
from infra.event_mapper import EventMapper
from infra.postgres import connect
from interfaces.cli import progress
from interfaces.cli.output import AsJson, show
from interfaces.cli.session import parts
from projections import rebuild as rebuilding
from projections.read_model import ReadModel
from projections.read_models import FOLDED, READ_MODELS
from projections.slots import resume as resume_slot
from projections.slots import slot_statuses

app = typer.Typer(help="The read models and the other slots that follow the event log.", no_args_is_help=True)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Shows each slot's position, its lag in events and whether it is parked. Example: wattledger projections status"""
    with parts() as assembly, assembly.connect() as connection:
        show(slot_statuses(connection), as_json)


@app.command()
def rebuild(
    names: Annotated[list[str] | None, typer.Argument(help="Read models; all but audit_log if none is given.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that load.")] = 1,
    force_reason: Annotated[
        str | None, typer.Option(help="Swap though they differ from the live ones, and keep this as the reason.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rebuilds read models from the log beside the live ones, compares, and swaps them in while everything runs.

    It may be interrupted at any point and started again. Example:
    wattledger projections rebuild command_log --workers 2
    """
    chosen = [_read_model(name) for name in names] if names else list(FOLDED)
    with parts() as assembly, progress.shown() as shown:
        rebuilt = rebuilding.rebuild(
            partial(connect, assembly.where.database_url, "rebuild"),
            EventMapper().decoder,
            chosen,
            workers=workers,
            progress=shown,
            force_reason=force_reason,
        )
    show(rebuilt, as_json)


@app.command()
def rollback(name: Annotated[str, typer.Argument(help="A read model.")]) -> None:
    """Puts back the table that the last rebuild replaced. Example: wattledger projections rollback command_log"""
    _read_model(name)
    with parts() as assembly:
        position = rebuilding.rollback(assembly.connect, name)
    typer.echo(f"{name} is the table of before again, from position {position:,}.")


@app.command()
def resume(name: Annotated[str, typer.Argument(help="A slot, see `wattledger projections status`.")]) -> None:
    """Lets a parked slot go on when the cause is mended. Example: wattledger projections resume plants"""
    with parts() as assembly, assembly.connect() as connection:
        if not resume_slot(connection, name):
            raise NotFound(f"No parked slot {name}: see `wattledger projections status`")
    typer.echo(f"{name} goes on.")


def _read_model(name: str) -> ReadModel[Any]:
    found = next((model for model in READ_MODELS if model.name == name), None)
    if found is None:
        raise NotFound(f"No read model {name}; there are {', '.join(model.name for model in READ_MODELS)}")
    return found
