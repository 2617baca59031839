"""Every 200 of the reference has every field that it prints, of its type and casing, and no other."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from application.context import acting
from domain.relayed_command import RelayedCommand
from projections.meters import MeterReading, record_meters
from projections.samples import Sample, record_telemetry
from tests.http import reference
from tests.http.reference import ROUTES, Route
from tests.http.world import COMMANDER, Org, World

NULLABLE = {
    "esmApiUrl", "esmClientId", "lastSyncAt", "lastSyncError", "ackStatus", "correlationId", "executedAt",
    "rejectionReason", "esiState", "message", "requestCode", "resultCode", "respondedAt",
}  # fmt: skip


def matches(sample: Any, found: Any, name: str = "") -> None:
    if found is None:
        assert name in NULLABLE, name
    elif isinstance(sample, dict):
        assert isinstance(found, dict), name
        if sample:
            assert set(found) == set(sample), name
        for key, value in sample.items():
            matches(value, found[key], key)
    elif isinstance(sample, list):
        assert found, f"no example of {name}"
        for each in found:
            matches(sample[0], each, name)
    elif sample == reference.TIME:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", found), name
    elif sample == reference.UUID_:
        assert str(UUID(found)) == found, name
    elif isinstance(sample, bool) or isinstance(found, bool):
        assert type(sample) is type(found), name
    elif isinstance(sample, int):
        assert isinstance(found, (int, float)), name
    else:
        assert isinstance(found, str), name


@pytest.fixture(scope="module")
def filled(package_world: World) -> tuple[Org, UUID]:
    """An organisation with a plant that has everything."""
    org = package_world.organisation()
    plant_id = org.plant()
    assert org.post(f"/trading/plants/{plant_id}/config", json=reference.PLANT_CONFIG_BODY).status_code == 200
    now = datetime.now(UTC)
    with psycopg.connect(package_world.database_url, autocommit=True) as connection:
        record_telemetry(connection, [Sample(plant_id, now, 50, 1.5, 2, 3, 4, 5)])
        readings = [MeterReading(plant_id, "grid", now - timedelta(minutes=age), 10 - age) for age in (9, 1)]
        record_meters(connection, readings)
    _relay(org, plant_id)
    return org, plant_id


def _relay(org: Org, plant_id: UUID) -> None:
    command: RelayedCommand = RelayedCommand._create(
        RelayedCommand.Created,
        originator_id=uuid4(),
        organization_id=org.id,
        queue_prefix=org.slug,
        plant_id=plant_id,
        message_id=uuid4(),
        correlation_id="c-1",
        command_type="SITE_SETPOINT",
        type="command.site-setpoint",
        routing_key=f"{org.slug}.command.site-setpoint",
        site_id="esm-001",
        sent_at=datetime.now(UTC),
        payload={"targetValueKw": 10**30},
        digest="0" * 64,
        signed=False,
    )
    command.accept(datetime.now(UTC) + timedelta(minutes=15))
    with acting(COMMANDER) as task:
        org.world.events.save(command)
    org.world.caught_up(task.position)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_answer_is_as_printed(filled: tuple[Org, UUID], route: Route) -> None:
    org, plant_id = filled
    options = {} if route.body is None else {"json": route.body}
    answer = org.world.client.request(route.method, route.at(plant_id), headers=org.jwt(), **options)
    assert answer.status_code == 200, answer.text
    matches(route.answer, answer.json())


def test_integers_of_any_size_come_back(filled: tuple[Org, UUID]) -> None:
    org, plant_id = filled
    entry = org.get(f"/trading/plants/{plant_id}/command-log").json()["data"][0]
    assert entry["payload"] == {"targetValueKw": 10**30}


def test_plants_are_listed(filled: tuple[Org, UUID]) -> None:
    org, plant_id = filled
    body = org.get("/trading/plants", params={"limit": 2}).json()
    assert body["meta"] == {"page": 1, "limit": 2, "total": 3, "totalPages": 2}
    listed = org.get("/trading/plants").json()["data"]
    assert {name for plant in listed for name in plant} == {
        "id", "externalPlantId", "name", "linked", "lastSeenAt", "lastTelemetryAt",
    }  # fmt: skip
    mine = next(plant for plant in listed if plant["id"] == str(plant_id))
    assert mine["linked"] is True
    assert mine["lastTelemetryAt"].endswith("Z")


def test_latest_without_data_is_nulls(filled: tuple[Org, UUID]) -> None:
    org, _ = filled
    other = org.plant("esm-002")
    nulls = dict.fromkeys(reference.TELEMETRY)
    assert org.get(f"/trading/plants/{other}/telemetry/latest").json() == {**nulls, "plant_id": str(other)}
