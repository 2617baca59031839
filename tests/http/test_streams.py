"""Streams of new samples: what comes, how a client goes on, who is let in, and what a bad client costs."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import psycopg
import pytest

from application.context import acting
from infra.embedded import EmbeddedPostgres
from interfaces.http.services import Streaming
from projections.samples import Sample, record_telemetry
from tests.http.conftest import PLENTY
from tests.http.world import COMMANDER, Org, World, is_envelope, served
from tests.servers import database

FAST = Streaming(per_organization=200, every_s=0.05, heart_beat_s=0.2, patience_s=0.5)


@pytest.fixture(scope="module")
def streaming_world(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[World]:
    with database(postgres_server, migrated_template) as url, served(url, PLENTY, streaming=FAST) as world:
        yield world


@pytest.fixture
def org(streaming_world: World) -> Org:
    return streaming_world.organisation()


@pytest.fixture
def plant_id(org: Org) -> UUID:
    return org.plant()


@dataclass
class Event:
    id: str
    data: dict[str, object] | None
    name: str = ""


@dataclass
class Client:
    """Reads events; like a browser it knows the last id, also of an event without data."""

    answer: httpx.Response
    last_id: str = ""
    lines: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = self.answer.iter_lines()

    def block(self) -> Event:
        """The next one, heart-beats too; raises EOFError at the end."""
        fields: dict[str, str] = {}
        for line in iter(self.lines.__next__, ""):
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        if not fields:
            raise EOFError
        self.last_id = fields.get("id", self.last_id)
        return Event(self.last_id, json.loads(fields["data"]) if "data" in fields else None, fields.get("event", ""))

    def event(self) -> Event:
        while (found := self.block()).data is None:
            pass
        return found

    def drain(self) -> None:
        """To its orderly end, which must not be long in coming."""
        end = time.monotonic() + 20
        for _ in self.lines:
            assert time.monotonic() < end

    def begun(self) -> str:
        """The first id: from here on nothing is missed."""
        while not self.last_id:
            self.block()
        return self.last_id


@contextmanager
def following(org: Org, plant_id: UUID, last_id: str = "", headers: dict[str, str] | None = None) -> Iterator[Client]:
    asked = {**(headers or org.jwt("VIEWER")), **({"Last-Event-ID": last_id} if last_id else {})}
    with org.world.client.stream("GET", f"/trading/plants/{plant_id}/telemetry/stream", headers=asked) as answer:
        if answer.status_code != 200:
            answer.read()
        yield Client(answer)


def record(org: Org, *samples: Sample) -> None:
    with psycopg.connect(org.world.database_url, autocommit=True) as connection:
        assert record_telemetry(connection, samples).new == len(samples)


def ended(world: World) -> float:
    """How many streams have come to their end."""
    labels = {"method": "GET", "route": "/api/v1/trading/plants/{plant_id}/telemetry/stream", "status": "200"}
    return world.services.registry.get_sample_value("wattledger_http_requests_total", labels) or 0


def until_ended(world: World, count: float) -> None:
    end = time.monotonic() + 20
    while ended(world) < count:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_new_sample_is_an_event(org: Org, plant_id: UUID) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    with following(org, plant_id) as client:
        assert client.answer.headers["content-type"].startswith("text/event-stream")
        assert client.answer.headers["cache-control"] == "no-store"
        assert [next(client.lines), next(client.lines)] == ["retry: 2000", ""]
        client.begun()
        record(org, Sample(UUID(int=5), now, 1.0), Sample(plant_id, now, 55.0, -3.5))
        event = client.event()
        assert event.data == {
            "plant_id": str(plant_id), "time": f"{now:%Y-%m-%dT%H:%M:%S.000Z}", "soc": 55.0, "grid_power": -3.5,
            "fve_power": None, "consumption": None, "invertor_power": None, "fve_reg": None,
        }  # fmt: skip
        late = now - timedelta(minutes=5)
        record(org, Sample(plant_id, late, 55.0, 1.0))
        assert client.event().data == event.data | {"time": f"{late:%Y-%m-%dT%H:%M:%S.000Z}", "grid_power": 1.0}
        assert client.block().data is None


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_client_goes_on_where_it_was(org: Org, plant_id: UUID, taken: int) -> None:
    """Each time it reads a few events and is cut off, while samples go on coming, in any order of their times."""
    now, seen, sent, last_id = datetime.now(UTC), list[object](), 0, ""
    for number in range(8):
        with following(org, plant_id, last_id) as client:
            last_id = last_id or client.begun()
            batch = [Sample(plant_id, now - timedelta(seconds=(sent + n) * 7 % 31), sent + n + 0.0) for n in range(3)]
            record(org, *batch)
            sent += len(batch)
            for _ in range(taken if number < 7 else sent - len(seen)):
                event = client.event()
                seen.append(event.data and event.data["soc"])
                last_id = event.id
    assert len(seen) == len(set(seen)) == sent == 24


def test_what_cannot_be_gone_on_from_is_told(org: Org, plant_id: UUID) -> None:
    for last_id in ("1-1", f"{2**58}-{time.time_ns() // 1000}"):
        with following(org, plant_id, last_id) as client:
            event = client.event()
            assert event.name == "reset"
            assert event.id != last_id
            record(org, Sample(plant_id, datetime.now(UTC), 1.0))
            assert client.event().name == ""
    with following(org, plant_id, "yesterday") as client:
        assert "errors" in is_envelope(client.answer, 400, "BAD_REQUEST")


def test_each_organisation_has_so_many_streams(streaming_world: World, org: Org, plant_id: UUID) -> None:
    """200 at once, of one reader: the API has connections for others, and each gets its sample."""
    path = f"/trading/plants/{plant_id}/telemetry/stream"

    async def one(client: httpx.AsyncClient, begun: asyncio.Event) -> str:
        async with client.stream("GET", path, headers=org.jwt()) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("id:"):
                    begun.set()
                if line.startswith("data:"):
                    return line
        raise AssertionError(answer.status_code)

    async def scenario() -> list[str]:
        limits, begun = httpx.Limits(max_connections=300), [asyncio.Event() for _ in range(200)]
        async with httpx.AsyncClient(base_url=f"{streaming_world.url}/api/v1", timeout=30, limits=limits) as client:
            tasks = [asyncio.create_task(one(client, each)) for each in begun]
            for each in begun:
                await asyncio.wait_for(each.wait(), 30)
            refused = await client.get(path, headers=org.jwt())
            assert is_envelope(refused, 429, "TOO_MANY_REQUESTS") == {"reason": "TOO_MANY_STREAMS"}
            assert int(refused.headers["retry-after"]) > 0
            other = streaming_world.organisation()
            assert other.get("/trading/config").status_code == 200
            with psycopg.connect(streaming_world.database_url) as connection:
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wattledger queries'"
                ).fetchone()
                assert row is not None
                assert row[0] <= 10
            record(org, Sample(plant_id, datetime.now(UTC), 12.0))
            return await asyncio.gather(*tasks)

    before = ended(streaming_world)
    answers = asyncio.run(scenario())
    assert len(answers) == 200
    assert all('"soc":12.0' in line for line in answers)
    until_ended(streaming_world, before + 200)
    with following(org, plant_id) as client:  # there is room again
        assert client.answer.status_code == 200


def test_a_revoked_key_ends_its_stream(streaming_world: World, org: Org, plant_id: UUID) -> None:
    kept, revoked = org.key("trading:read"), org.key("trading:read")
    with ExitStack() as stack:
        staying, going = (
            stack.enter_context(following(org, plant_id, headers={"X-API-Key": key.api_key})) for key in (kept, revoked)
        )
        going.begun()
        staying.begun()
        with acting(COMMANDER):
            streaming_world.organisations.revoke_key(org.id, revoked.id)
        going.drain()
        record(org, Sample(plant_id, datetime.now(UTC), 1.0))
        assert staying.event().data


def test_an_expired_token_ends_its_stream(org: Org, plant_id: UUID) -> None:
    headers = org.jwt(exp=int(time.time()) - 28)  # within the leeway of 30 s for a moment
    with following(org, plant_id, headers=headers) as client:
        assert client.answer.status_code == 200
        client.drain()


def test_a_client_that_takes_nothing_is_dropped(streaming_world: World, org: Org, plant_id: UUID) -> None:
    with following(org, plant_id) as client:
        last_id = client.begun()
    now, before = datetime.now(UTC), ended(streaming_world)
    record(org, *[Sample(plant_id, now - timedelta(milliseconds=20 * n), 1.0) for n in range(40_000)])
    url = httpx.URL(streaming_world.url)
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect((url.host, url.port))
        headers = {**org.jwt(), "Host": "x", "Last-Event-ID": last_id}
        lines = [f"GET /api/v1/trading/plants/{plant_id}/telemetry/stream HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        stuck.sendall("\r\n".join([*lines, "", ""]).encode())
        until_ended(streaming_world, before + 1)
    assert org.get("/trading/config").status_code == 200


def test_streams_end_with_the_server(postgres_server: EmbeddedPostgres, migrated_template: str) -> None:
    """Of themselves, before it would lose patience with them."""
    with database(postgres_server, migrated_template) as url, ExitStack() as clients:
        with served(url, PLENTY) as world:
            org = world.organisation()
            plant_id, own = org.plant(), clients.enter_context(httpx.Client(base_url=f"{world.url}/api/v1"))
            answer = clients.enter_context(
                own.stream("GET", f"/trading/plants/{plant_id}/telemetry/stream", headers=org.jwt())
            )
            client = Client(answer)
            client.begun()
        client.drain()
