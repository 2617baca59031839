"""The command line: `wattledger COMMAND --help` says what each command does, with an example."""

import sys

import psycopg
import typer
from eventsourcing.persistence import IntegrityError
from psycopg_pool import PoolTimeout
from pydantic import ValidationError

# Typer carries a click of its own, and shows only some of its exceptions.
from typer._click.exceptions import ClickException, NoArgsIsHelpError

from domain.errors import WattledgerError
from infra.bootstrap import NotConfigured
from infra.embedded import ServerFailed
from infra.operator_keys import WeakKey
from infra.redaction import redacted
from infra.serving import PortTaken
from interfaces.cli import (
    administration,
    audit_replay,
    dead_letters,
    doctor,
    events,
    measurements,
    plans,
    projections,
    sandbox,
    secrets,
    serving,
    up,
)
from projections.rebuild import RebuildError
from projections.schema import SchemaError
from projections.workers import WorkerFailed

app = typer.Typer(
    help="Connects an organisation's batteries and solar plants to an external energy system management (ESM) partner.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(up.up)
app.command()(serving.serve)
app.command()(serving.work)
app.command()(serving.migrate)
app.command()(doctor.doctor)
app.command()(serving.openapi)
app.add_typer(administration.orgs, name="orgs")
app.add_typer(administration.orgs, name="organisations", hidden=True)
app.add_typer(administration.keys, name="keys")
app.add_typer(administration.plants, name="plants")
app.add_typer(measurements.app, name="measurements")
app.add_typer(plans.app, name="plans")
app.add_typer(projections.app, name="projections")
app.add_typer(events.app, name="events")
app.add_typer(audit_replay.app, name="audit")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(secrets.app, name="secrets")

EXPECTED = (
    WattledgerError,
    NotConfigured,
    ServerFailed,
    SchemaError,
    RebuildError,
    WorkerFailed,
    WeakKey,
    PortTaken,
    IntegrityError,
    PoolTimeout,
    psycopg.Error,
    OSError,
    ValueError,
)


def main() -> None:
    """Errors are one clear line and exit status 2; Ctrl-C is a clean end."""
    try:
        status = app(standalone_mode=False)
    except NoArgsIsHelpError as error:
        typer.echo(error.format_message())
        status = 2
    except ClickException as error:
        status = _fail(error.format_message())
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        status = _fail(f"WATTLEDGER_{str(first['loc'][0]).upper()}: {first['msg']}")
    except (KeyboardInterrupt, typer.Abort, BrokenPipeError):
        status = 0
    except EXPECTED as error:
        status = _fail(str(error))
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str) -> int:
    line = redacted(" ".join(message.split()))
    typer.echo(f"wattledger: {line}", err=True)
    return 2
