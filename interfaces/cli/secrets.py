"""Commands about the keys that seal secrets."""

import typer

from infra.secret_box import OperatorKey

app = typer.Typer(help="The keys that seal secrets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `generate` a command of its own name though it is the only one."""


@app.command()
def generate() -> None:
    """Prints a new secret key. Example: export WATTLEDGER_SECRET_KEYS=$(wattledger secrets generate)"""
    typer.echo(str(OperatorKey.random()))
