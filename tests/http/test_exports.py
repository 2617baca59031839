"""Exports over HTTP: headers, formats, limits, and the connections that they borrow."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from psycopg_pool import PoolTimeout
from pyarrow import parquet

from interfaces.http.streamed import Streams
from projections.meters import MeterReading, record_meters
from projections.samples import Sample, record_telemetry
from tests.http.world import Org, World, is_envelope

START = datetime(2026, 10, 31, 23, 50, tzinfo=UTC)
FROM, TO = "2026-10-31T23:50:00Z", "2026-11-01T00:10:00Z"
SPAN = {"from": FROM, "to": TO}


@pytest.fixture
def plant_id(world: World, org: Org) -> UUID:
    """With a sample each 30 s, and a meter whose name a spreadsheet would compute."""
    plant_id = org.plant()
    times = [START + timedelta(seconds=30 * n, microseconds=n) for n in range(40)]
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        record_telemetry(connection, [Sample(plant_id, time, n / 3, operating_mode="") for n, time in enumerate(times)])
        record_telemetry(connection, [Sample(uuid4(), time, 99.0) for time in times])
        record_meters(
            connection, [MeterReading(plant_id, "=cmd|'/c calc'!A1", time, n) for n, time in enumerate(times)]
        )
    return plant_id


def rows(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def test_raw_samples_are_as_they_came(org: Org, plant_id: UUID) -> None:
    answer = org.get(f"/trading/plants/{plant_id}/telemetry/export", params=SPAN)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    name = f"telemetry-{plant_id}-20261031T235000Z-20261101T001000Z.csv"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert {"x-request-id", "ratelimit-remaining", "x-position"} <= set(answer.headers)
    found = rows(answer)
    assert len(found) == 40
    assert found[1] == {
        "plant_id": str(plant_id), "time": "2026-10-31T23:50:30.000001Z", "soc": repr(1 / 3), "grid_power": "",
        "fve_power": "", "consumption": "", "invertor_power": "", "fve_reg": "", "available_battery_energy": "",
        "battery_temperature": "", "operating_mode": "'", "data_quality": "",
    }  # fmt: skip


@pytest.mark.parametrize("what", ["telemetry", "meters"])
@pytest.mark.parametrize("bucket", [1, 7, 60])
def test_buckets_are_those_of_the_json(org: Org, plant_id: UUID, what: str, bucket: int) -> None:
    """Over more than one of the pieces that it is read in."""
    span = {"from": "2026-10-30T01:03:04Z", "to": TO, "bucket": bucket}
    found = rows(org.get(f"/trading/plants/{plant_id}/{what}/export", params=span))
    json = org.get(f"/trading/plants/{plant_id}/{what}", params=span).json()
    assert [list(row) for row in found] == [list(row) for row in json]
    for row, expected in zip(found, json, strict=True):
        assert datetime.fromisoformat(row["time"]) == datetime.fromisoformat(expected["time"])
        for name in row.keys() - {"time", "meter_id"}:
            assert row[name] == ("" if expected[name] is None else str(expected[name]))


def test_a_spreadsheet_computes_nothing(org: Org, plant_id: UUID) -> None:
    found = rows(org.get(f"/trading/plants/{plant_id}/meters/export", params=SPAN))
    assert {row["meter_id"] for row in found} == {"'=cmd|'/c calc'!A1"}
    assert [float(row["energy_kwh"]) for row in found] == list(range(40))


@pytest.mark.parametrize(("what", "columns"), [("telemetry", 12), ("meters", 4)])
def test_parquet_has_the_same_rows(org: Org, plant_id: UUID, what: str, columns: int) -> None:
    answer = org.get(f"/trading/plants/{plant_id}/{what}/export", params={**SPAN, "format": "parquet"})
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    table = parquet.read_table(io.BytesIO(answer.content)).to_pylist()
    assert (len(table), len(table[0])) == (40, columns)
    assert table[1]["time"] == START + timedelta(seconds=30, microseconds=1)


def test_without_pyarrow_parquet_is_refused(org: Org, plant_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    answer = org.get(f"/trading/plants/{plant_id}/telemetry/export", params={"format": "parquet"})
    assert is_envelope(answer, 400, "BAD_REQUEST") == {"reason": "PARQUET_NOT_INSTALLED"}


def test_an_export_of_nothing_is_a_header(org: Org, plant_id: UUID) -> None:
    answer = org.get(f"/trading/plants/{plant_id}/meters/export", params={"to": "2020-01-01"})
    assert answer.text == "plant_id,meter_id,time,energy_kwh\r\n"


@pytest.mark.parametrize(
    "query",
    [
        {"from": TO, "to": FROM},
        {"from": "2025-01-01", "to": "2026-01-03"},
        {"from": "0001-01-01T00:00:00+14:00", "to": "0001-01-01"},
        {"from": "9999-12-31T23:00:00Z", "to": "9999-12-31T23:30:00Z"},
        {"bucket": "0"},
        {"bucket": "61"},
        {"bucket": "5", "interval": "5"},
        {"format": "xlsx"},
        {"from": "yesterday"},
        {"colour": "red"},
    ],
)
def test_bad_queries_are_refused_as_elsewhere(org: Org, plant_id: UUID, query: dict[str, Any]) -> None:
    answer = org.get(f"/trading/plants/{plant_id}/telemetry/export", params=query)
    assert "errors" in is_envelope(answer, 400, "BAD_REQUEST")


@pytest.mark.parametrize("path", ["telemetry/export", "meters/export", "telemetry/stream"])
def test_nobody_elses_plant(world: World, org: Org, plant_id: UUID, path: str) -> None:
    other = world.organisation()
    is_envelope(other.get(f"/trading/plants/{plant_id}/{path}", params=None), 404, "PLANT_NOT_FOUND")
    is_envelope(org.get(f"/trading/plants/nonsense/{path}"), 400, "BAD_REQUEST")
    is_envelope(world.client.get(f"/trading/plants/{plant_id}/{path}"), 401, "UNAUTHORIZED")
    nobody = org.jwt("JANITOR")  # type: ignore[arg-type]
    answer = world.client.get(f"/trading/plants/{plant_id}/{path}", headers=nobody)
    is_envelope(answer, 403, "INSUFFICIENT_ORG_PERMISSIONS")


def test_head_has_the_headers_alone(org: Org, world: World, plant_id: UUID) -> None:
    for path in ("telemetry/export", "telemetry/stream"):
        answer = world.client.head(f"/trading/plants/{plant_id}/{path}", headers=org.jwt())
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/")


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.formats.CsvEncoder.rows", 7)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("what", ["telemetry", "meters"])
def test_pages_make_the_whole(org: Org, plant_id: UUID, what: str) -> None:
    assert len({row["time"] for row in rows(org.get(f"/trading/plants/{plant_id}/{what}/export", params=SPAN))}) == 40


@pytest.mark.usefixtures("small_pages")
def test_a_client_that_leaves_holds_no_connection(world: World, org: Org, plant_id: UUID) -> None:
    for _ in range(20):  # twice as many as the pool has
        with world.client.stream(
            "GET", f"/trading/plants/{plant_id}/telemetry/export", headers=org.jwt(), params=SPAN
        ) as answer:
            assert next(answer.iter_bytes(10)).startswith(b"plant_id")
    assert org.get(f"/trading/plants/{plant_id}/telemetry", params=SPAN).status_code == 200


def test_a_busy_database_is_an_answer(org: Org, plant_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_: object) -> None:
        raise PoolTimeout

    monkeypatch.setattr(Streams, "ask_in_turn", busy)
    is_envelope(org.get(f"/trading/plants/{plant_id}/telemetry/export"), 503, "SERVICE_UNAVAILABLE")


@pytest.mark.usefixtures("small_pages")
def test_a_failure_on_the_way_is_seen_by_the_client(org: Org, plant_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, calls = Streams.ask_in_turn, []

    async def failing(self: Streams, question: Any) -> Any:
        calls.append(question)
        if len(calls) > 2:
            raise PoolTimeout
        return await ask(self, question)

    monkeypatch.setattr(Streams, "ask_in_turn", failing)
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        org.get(f"/trading/plants/{plant_id}/telemetry/export", params=SPAN)
