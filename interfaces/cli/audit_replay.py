"""Commands that fold the whole log anew: read models as of a moment, and the self-audit."""

from functools import partial
from typing import Annotated

import typer

from domain.errors import Invalid
from infra.postgres import connect
from interfaces.cli import progress
from interfaces.cli.audit import app
from interfaces.cli.audit_log import moment
from interfaces.cli.output import AsJson, json_line, show
from interfaces.cli.session import parts
from projections import replay as replaying
from projections import self_audit
from projections.read_models import READ_MODELS

__all__ = ["app"]

Workers = Annotated[int, typer.Option(min=1, max=64, help="Processes that load.")]


@app.command()
def replay(
    at: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601; UTC if it names no zone.")] = None,
    query: Annotated[list[str] | None, typer.Option(help="SQL to ask then; may be repeated. Prints JSON.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the schema after the queries.")] = False,
    drop: Annotated[str | None, typer.Option(metavar="SCHEMA|all", help="Drop a kept schema.")] = None,
    workers: Workers = 1,
) -> None:
    """Makes all read models as they were at a moment, in a schema of their own. With queries it answers them and drops
    the schema, else it keeps it and says how to ask and how to drop it. Measurements are not in the log.

    Example: wattledger audit replay --at 2026-11-01T12:00 --query "SELECT slug, status FROM trading_configs"
    """
    if (at is None) == (drop is None):
        raise Invalid("Give a time to replay, or a schema to drop")
    with parts() as assembly, assembly.connect() as connection:
        if drop is not None:
            for schema in replaying.replays(connection) if drop == "all" else [drop]:
                replaying.drop(connection, schema)
                typer.echo(f"Dropped {schema}.", err=True)
            return
        row = connection.execute("SELECT position_at(%s)", [moment(at)]).fetchone()
        assert row is not None
        connecting = partial(connect, assembly.where.database_url, "replay")
        with progress.shown() as shown:
            schema = replaying.replay(connecting, assembly.decode, READ_MODELS, row[0], workers=workers, progress=shown)
        try:
            for each in query or ():
                for found in replaying.ask(connection, schema, each):
                    typer.echo(json_line(found))
        finally:
            if query and not keep:
                replaying.drop(connection, schema)
    if keep or not query:
        typer.echo(f"The read models as of position {row[0]} are in the schema {schema}.")
        typer.echo(f"Ask: SET search_path = {schema}, public; SELECT … — drop: wattledger audit replay --drop {schema}")


@app.command()
def check(workers: Workers = 1, as_json: AsJson = False) -> None:
    """Folds every stream anew, compares with the read models, and looks for what never ended; exit status 1 if
    something is wrong. A worker does it once a day. Example: wattledger audit check"""
    with parts() as assembly, progress.shown() as shown:
        connecting = partial(connect, assembly.where.database_url, "check")
        found = self_audit.check(connecting, assembly.decode, READ_MODELS, workers=workers, progress=shown)
    show(found, as_json)
    if any(each.problem for each in found):
        raise typer.Exit(1)
