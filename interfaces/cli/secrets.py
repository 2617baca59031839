"""Commands about the keys that seal secrets, and about forgetting them."""

import dataclasses
import time
from typing import Annotated

import typer
from pydantic.alias_generators import to_camel

from infra.data_keys import DataKeys
from infra.operator_keys import OperatorKey, WeakKey
from infra.secret_box import PostgresSecretBox
from interfaces.cli import progress
from interfaces.cli.output import AsJson, print_json, show
from interfaces.cli.session import organization_id, parts
from projections.rebuild import Progress

app = typer.Typer(help="The keys that seal secrets.", no_args_is_help=True)


@app.command()
def generate() -> None:
    """Prints a new secret key. Example: export WATTLEDGER_SECRET_KEYS=$(wattledger secrets generate)"""
    typer.echo(str(OperatorKey.random()))


@app.command()
def status(as_json: AsJson = False) -> None:
    """Lists the operator keys that are in use. Example: wattledger secrets status --json

    `neededBy` counts the data keys that no other of the secret keys opens.
    """
    with parts() as assembly, assembly.connect() as connection:
        show(DataKeys(assembly.where.secret_keys).uses(connection), as_json)


@app.command()
def rotate(
    retire: Annotated[str | None, typer.Option(metavar="KEY_ID", help="Then drop what this key wraps.")] = None,
    as_json: AsJson = False,
) -> None:
    """Puts the first of the secret keys in charge of all secrets. Example: wattledger secrets rotate --retire 1f3c7a90

    1. Here: WATTLEDGER_SECRET_KEYS=new,old wattledger secrets rotate. All processes go on, whichever of the two they
    know. 2. Restart them with new,old, in any order. 3. wattledger secrets rotate --retire ID-OF-OLD, which refuses
    while that key is needed, or was until now. 4. Take the old key out of the setting.

    It may be interrupted and run again. With `up`, the keys are the lines of WATTLEDGER_HOME/secret.keys.
    """
    began = time.monotonic()
    with parts() as assembly, assembly.connect() as connection, progress.shown() as shown:
        keys = DataKeys(assembly.where.secret_keys)

        def tell(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - began, 1e-9)
            shown(Progress("wrapping data keys", done, total, rate, (total - done) / rate))

        keys.check(connection)
        assembly.hasher.prepare()
        wrapped = keys.rotate(connection, tell)
        if retire and wrapped:
            raise WeakKey(f"{wrapped} data keys were wrapped only now: restart everything with both keys, then retire")
        dropped = keys.retire(connection, retire) if retire else 0
        uses = keys.uses(connection)
    if as_json:
        in_use = [{to_camel(name): value for name, value in dataclasses.asdict(use).items()} for use in uses]
        print_json({"wrapped": wrapped, "dropped": dropped, "keys": in_use})
        return
    show(uses, False)
    typer.echo(f"Wrapped {wrapped}, dropped {dropped}.")


@app.command()
def forget(
    slug: Annotated[str, typer.Argument(help="The organisation's slug.")],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Destroys an organisation's ESM secret and signing keys for good. Example: wattledger secrets forget acme

    The log stays as it is: it only names versions of secrets. Backups of the database hold them until they expire.
    """
    with parts() as assembly:
        with assembly.connect() as connection:
            owner = organization_id(connection, slug)
        if not yes:
            typer.confirm(f"Destroy all secrets of {slug}? There is no way back", abort=True)
        PostgresSecretBox(assembly.pool, assembly.where.secret_keys).forget_all(owner)
    typer.echo(f"Forgot the secrets of {slug}.")
