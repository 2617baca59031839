"""Commands that run a part: the API, a worker; and those that prepare or describe."""

import logging
import signal
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import psycopg
import stamina
import typer

from infra import logs
from infra.bootstrap import NotConfigured, Where, assembled, find
from infra.data_keys import DataKeys
from infra.postgres import connect
from infra.serving import Serving, settle
from infra.settings import Settings
from interfaces.cli.output import print_json
from interfaces.cli.wiring import api, showing_metrics, working
from interfaces.http.endpoints import ENDPOINTS
from interfaces.http.openapi import openapi as openapi_of
from projections.schema import migrate as apply_migrations
from projections.schema import pending

log = logging.getLogger(__name__)

GRACE_S = 5
ASK_AGAIN_S = 2.0


def serve() -> None:
    """Serves the HTTP API; any number of processes may. Example: WATTLEDGER_HTTP_PORT=8001 wattledger serve"""
    settings = Settings()
    logs.configure(settings.log_level)
    where = find(settings)
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        end_on_sigterm()
        _wait_for_database(where)
        parts = stack.enter_context(assembled(where, settings))
        leaving = threading.Event()
        app = api(parts, settings, leaving)
        server = stack.enter_context(
            Serving(app, settings.http_host, settings.http_port, lifespan="on", grace_s=GRACE_S)
        )
        typer.echo(f"Serving {server.url}/api/v1 — Ctrl-C ends it.")
        settle()
        wait_for_end()
        leaving.set()
        server.drain(settings.drain_seconds)


def work() -> None:
    """Follows the log, consumes the queues, keeps the timetable; any number may. Example: wattledger work"""
    settings = Settings()
    logs.configure(settings.log_level)
    where = find(settings)
    if where.amqp_url is None:
        raise NotConfigured("A worker needs a message broker: set WATTLEDGER_AMQP_URL")
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        end_on_sigterm()
        _wait_for_database(where)
        parts = stack.enter_context(assembled(where, settings))
        stack.enter_context(showing_metrics(parts, settings))
        stack.enter_context(working(parts, settings))
        typer.echo("Working — Ctrl-C ends it.")
        wait_for_end()


def migrate() -> None:
    """Applies the pending SQL migrations, each once. Example: wattledger migrate"""
    with connect(find(Settings()).database_url, "migrate") as connection:
        applied = apply_migrations(connection)
    typer.echo("\n".join(applied) if applied else "Nothing to do.")


def openapi(
    out: Annotated[Path | None, typer.Option(help="A file to write instead of printing.")] = None,
) -> None:
    """Prints the OpenAPI 3.1 document of the API. Example: wattledger openapi > openapi.json"""
    document = openapi_of(ENDPOINTS)
    if out is None:
        print_json(document)
    else:
        out.write_bytes(_json(document))


def _json(document: object) -> bytes:
    import orjson

    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def end_on_sigterm() -> None:
    """An orderly end on SIGTERM as on Ctrl-C, also when a script's shell started us deaf to Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for_end() -> None:
    """Until Ctrl-C or SIGTERM; another one does not disturb the end."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: object) -> None:  # noqa: ARG001 - the shape of a signal handler
    raise KeyboardInterrupt


def _wait_for_database(where: Where) -> None:
    """It may come up after us. One that we can't work with is refused at once."""
    for attempt in stamina.retry_context(
        _is_away, attempts=None, timeout=None, wait_initial=0.2, wait_max=ASK_AGAIN_S, wait_jitter=0.2
    ):
        with attempt, connect(where.database_url, "check") as connection:
            waiting = pending(connection)
            if waiting:
                raise NotConfigured(f"The database lacks {', '.join(waiting)}: run `wattledger migrate`")
            DataKeys(where.secret_keys).check(connection)


def _is_away(error: Exception) -> bool:
    away = isinstance(error, psycopg.OperationalError)
    if away:
        log.warning("waiting for the database", extra={"error": str(error)})
    return away
