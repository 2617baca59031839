"""HTTP under load: reads of every kind by 64 clients, beside Starlette and psycopg with the same queries."""

import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from psycopg import AsyncCursor
from psycopg.pq import Format
from psycopg.rows import dict_row
from psycopg.sql import Composable
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from application.context import Metadata, acting
from domain.plant_config import PlantConfig
from domain.relayed_command import RelayedCommand
from infra.bootstrap import QUERY_CONNECTIONS, assembled
from infra.postgres import async_pool, connect
from infra.serving import Serving
from projections.meters import MeterReading, record_meters
from projections.read_models import READ_MODELS
from tests.benchmarks.asking import Client, request, waits
from tests.benchmarks.harness import Bench, Goal, Result, benchmark, compare, percentile
from tests.benchmarks.history import command
from tests.benchmarks.months import DAY, DAY_QUERY, Months, months_of
from tests.benchmarks.served import SETTINGS, bare, our_api, served
from tests.http.world import following

CLIENTS = 64
COMMANDS = 30
"""Of each plant, and a tenth as many config changes."""
PREFIX = "/api/v1/trading"
_OF_EVERY_CALL = re.compile(rb"\b(api_keys|api_key_uses|rate_budgets)\b")


class Statement(NamedTuple):
    query: bytes
    parameters: Any
    binary: bool
    options: dict[str, Any]


@benchmark("http_load", Goal(0.7, 0.95), "requests/s")
def http_load(bench: Bench) -> Result:
    return _under_load(bench, 1, 9)


@benchmark("http_load_60", Goal(0.7, 0.95), "requests/s", large=True)
def http_load_60(bench: Bench) -> Result:
    """For a minute at a time."""
    return _under_load(bench, 60, 1)


def _under_load(bench: Bench, seconds: float, rounds: int) -> Result:
    months = months_of(bench)
    statements = _statements(months, _paths(months, _worked(bench, months)))
    waited: dict[str, list[float]] = {}

    def a_second(url: str, headers: dict[str, str]) -> float:
        took = waits(url, [request(path, headers) for path in statements], CLIENTS, seconds)
        waited.setdefault(url, []).extend(took)
        return len(took) / seconds

    with (
        served(our_api, months.where) as our_url,
        served(_bare, months.where.database_url, statements) as bare_url,
    ):
        result = compare(partial(a_second, our_url, months.headers), partial(a_second, bare_url, {}), rounds=rounds)
    ours, theirs = (percentile(waited[url], 99) * 1000 for url in (our_url, bare_url))
    return Result(result.ours, result.baseline, f"p99 {ours:.0f} and {theirs:.0f} ms")


def _worked(bench: Bench, months: Months) -> dict[UUID, UUID]:
    """What the plants did besides measuring; one of the commands of each."""
    if "worked" not in bench.shared:
        rng, commands = random.Random(7), {}
        with connect(months.where.database_url, "bench") as connection:
            done: list[RelayedCommand | PlantConfig] = []
            for plant_id in months.plants:
                issued = [_command(rng, months.organization_id, plant_id, number) for number in range(COMMANDS)]
                commands[plant_id] = issued[0].id
                done += [*issued, _changed(rng, PlantConfig(organization_id=months.organization_id, plant_id=plant_id))]
            with following(months.where.database_url), assembled(months.where, SETTINGS) as parts:
                with acting(Metadata(actor="partner:acme", source="amqp")) as task:
                    parts.events.save(*done)
                behind = "SELECT 1 FROM slots WHERE name = ANY(%s) AND position < %s"
                names = [model.name for model in READ_MODELS]
                while connection.execute(behind, [names, task.position]).fetchone():
                    time.sleep(0.05)
            record_meters(connection, [_reading(plant, n) for plant in months.plants for n in range(0, 24 * 60, 5)])
        bench.shared["worked"] = commands
    worked: dict[UUID, UUID] = bench.shared["worked"]
    return worked


def _command(rng: random.Random, organization_id: UUID, plant_id: UUID, number: int) -> RelayedCommand:
    issued = command(rng, organization_id, plant_id, number)
    issued.accept(DAY.end)
    issued.relay()
    issued.execute(DAY.end)
    return issued


def _changed(rng: random.Random, config: PlantConfig) -> PlantConfig:
    block: Any = {"from": "00:00", "to": "24:00", "pBatMin": -5.0, "pBatMax": 5.0, "socMin": 10.0, "socMax": 90.0}
    for _ in range(COMMANDS // 10):
        change_id = UUID(int=rng.getrandbits(128), version=4)
        config.send_change(change_id, str(change_id), 3, [block], validate_only=False)
        config.answer_change(
            change_id, request_code="R1", result_code="OK", message=None, is_error=False, is_terminal=True
        )
    return config


def _reading(plant_id: UUID, minute: int) -> MeterReading:
    return MeterReading(plant_id, "grid", DAY.start + timedelta(minutes=minute), minute / 60)


def _paths(months: Months, commands: Mapping[UUID, UUID]) -> Iterator[str]:
    """Every read that is answered from the database and ends."""
    for page, plant_id in enumerate(months.plants):
        plant = f"{PREFIX}/plants/{plant_id}"
        yield from (f"{PREFIX}/config", f"{PREFIX}/plants?limit=10&page={page % 5 + 1}", f"{PREFIX}/audit")
        yield from (f"{plant}/command-log", f"{plant}/command-log/{commands[plant_id]}", f"{plant}/config-log")
        yield from (f"{plant}/telemetry/latest", f"{plant}/telemetry?{DAY_QUERY}", f"{plant}/meters?{DAY_QUERY}")


def _statements(months: Months, paths: Iterator[str]) -> dict[str, list[Statement]]:
    """What the API asks the database for each path, but for credentials and limits."""
    noted: list[Statement] = []

    class Noting(AsyncCursor[Any]):
        async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            plain = query.as_bytes() if isinstance(query, Composable) else query
            text = plain.encode() if isinstance(plain, str) else plain
            noted.append(Statement(text, params, self.format is Format.BINARY, options))
            return await super().execute(query, params, **options)

    statements = {}
    with our_api(months.where) as app:
        app.state.gate.services.queries.kwargs["cursor_factory"] = Noting
        with Serving(app, lifespan="on") as serving, Client(serving.url) as client:
            for path in paths:
                noted.clear()
                client.get(request(path, months.headers))
                statements[path] = [each for each in noted if not _OF_EVERY_CALL.search(each.query)]
    return statements


@contextmanager
def _bare(database_url: str, statements: dict[str, list[Statement]]) -> Iterator[Starlette]:
    """The rows of all that a path asks for, as they are."""
    pool = async_pool(database_url, QUERY_CONNECTIONS, "bare")
    asked = {tuple(path.encode().partition(b"?")[::2]): each for path, each in statements.items()}

    async def rows(request: Request) -> Response:
        found = []
        async with pool.connection() as connection:
            for statement in asked[request.scope["raw_path"], request.scope["query_string"]]:
                async with connection.cursor(binary=statement.binary, row_factory=dict_row) as cursor:
                    await cursor.execute(statement.query, statement.parameters, **statement.options)
                    found.append(await cursor.fetchall())
        return Response(orjson.dumps(found, default=bytes.decode), media_type="application/json")

    yield bare(pool, "/{path:path}", rows)
