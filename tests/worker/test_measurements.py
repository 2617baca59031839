"""Telemetry and meters from the broker to their rows; what is none of them to the dead letters."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from application.ports import Message
from domain import vcp
from interfaces.amqp import Measurements
from interfaces.amqp.intake import INTERNAL_ERROR
from tests.relay.test_fuzz import JSON
from tests.relay.world import delivery
from tests.worker.site import Site, until

NOW = datetime.now(UTC).replace(microsecond=0)
VALUES = {"gridPowerKw": 12.5, "fvePowerKw": 3, "batteryPowerKw": -4.5, "consumptionPowerKw": None, "socPercent": 55,
          "fveReg": 100, "currentOperatingMode": "AUTO", "dataQuality": "GOOD", "devices": [{"id": 1}]}  # fmt: skip
METERS = {"readingAt": vcp.rfc3339(NOW), "meters": [{"meterId": "import", "energyKwh": 7.5}]}


def message(payload: dict[str, Any], at: datetime = NOW, site: str = "esm-001", **changes: Any) -> bytes:
    envelope = vcp.emit(uuid4(), site, payload, at) | {"source": "plant"} | changes
    return msgspec.json.encode(envelope)


def test_samples_and_readings_become_rows(site: Site) -> None:
    site.worker()
    key = "acme.event.telemetry.realtime"
    site.send_raw(f"{key}.esm-001", message(VALUES))
    site.send_raw(f"{key}.esm-001", message(VALUES))
    site.send_raw(f"{key}.{site.plant_id}", message(VALUES, NOW - timedelta(minutes=1)))
    site.send_raw(key, message(VALUES, NOW - timedelta(days=40), site=str(site.plant_id).upper()))
    site.send_raw("acme.event.telemetry.meter.esm-001", message(METERS))
    until(lambda: site.rows("SELECT count(*) FROM meter_readings") == [(1,)], "the reading")
    until(lambda: site.rows("SELECT count(*) FROM telemetry") == [(3,)], "the samples")
    assert site.rows(
        "SELECT plant_id, time, soc, grid_power, fve_power, consumption, invertor_power, fve_reg FROM telemetry_latest"
    ) == [(site.plant_id, NOW, 55, 12.5, 3, None, -4.5, 100)]
    assert site.rows("SELECT plant_id, meter_id, time, energy_kwh FROM meter_readings") == [
        (site.plant_id, "import", NOW, 7.5)
    ]
    assert site.rows("SELECT count(*) FROM measurement_conflicts") == [(0,)]


def test_a_new_plant_is_known_without_a_restart(local: Site) -> None:
    local.worker()
    local.send_raw("acme.event.telemetry.realtime.esm-001", message(VALUES))
    until(lambda: local.rows("SELECT count(*) FROM telemetry") == [(1,)], "the first plant's sample")
    with local.acting():
        new = local.plants.register(local.organization_id, "fresh", "Fresh")
    until(lambda: local.rows("SELECT 1 FROM plants WHERE id = %s", new.id), "the new plant's row")
    local.outside.publish([Message("vcp", "acme.event.telemetry.realtime.fresh", message(VALUES, site="fresh"))])
    until(lambda: local.rows("SELECT 1 FROM telemetry WHERE plant_id = %s", new.id), "the new plant's sample")


REALTIME = "acme.event.telemetry.realtime.esm-001"
WRONG = [
    (REALTIME, b"\xff", "no realtime message"),
    (REALTIME, message(VALUES, version="2.0"), "no realtime message"),
    (REALTIME, message(VALUES, surprise=1), "no realtime message"),
    (REALTIME, message(VALUES | {"socPercent": "55"}), "no realtime message"),
    (REALTIME, message(VALUES | {"socPercent": 1e13}), "no realtime message"),
    (REALTIME, message(VALUES).replace(b"12.5", b"NaN"), "no realtime message"),
    (REALTIME, message(VALUES).replace(b"12.5", b"1e999"), "no realtime message"),
    (REALTIME, message(VALUES | {"dataQuality": "FINE"}), "no realtime message"),
    (REALTIME, message(VALUES | {"currentOperatingMode": "\0"}), "a string holds a NUL character"),
    (REALTIME, message(VALUES, timestamp="2026-03-01T12:00:00"), "no realtime message"),
    (REALTIME, message(VALUES, NOW + timedelta(hours=7)), "measured in the future"),
    (REALTIME, message(VALUES, NOW - timedelta(days=1826)), "measured before the retention"),
    (REALTIME, message(VALUES, site="esm-404"), "unknown site"),
    (REALTIME, message(VALUES, site="esm-002"), "the routing key names another site than the envelope"),
    ("acme.event.telemetry.realtime.esm-404", message(VALUES), "unknown site"),
    ("rival.event.telemetry.realtime.esm-001", message(VALUES), "unknown site"),
    ("acme.event.telemetry.weather.esm-001", message(VALUES), "no such telemetry"),
    ("acme.event.telemetry", message(VALUES), "no such telemetry"),
    ("acme.event.telemetry.meter.esm-001", message(VALUES), "no meter message"),
    ("acme.event.telemetry.meter", message({**METERS, "meters": [{"meterId": "", "energyKwh": 1}]}), "no meter"),
    ("acme.event.telemetry.meter", message({**METERS, "meters": [{"meterId": "m", "energyKwh": -1}]}), "no meter"),
    ("acme.event.telemetry.meter", message({**METERS, "readingAt": "0001-01-01T00:00:00+14:00"}), "measured before"),
]


def test_what_is_no_measurement_goes_to_the_dead_letters_and_takes_nothing_along(local: Site) -> None:
    local.worker()
    for key, body, _ in WRONG:
        local.send_raw(key, body)
    local.send_raw(REALTIME, message(VALUES))
    dead = local.dead(len(WRONG))
    assert len(dead) == len(WRONG)
    for _, body, reason in WRONG:
        assert dead[body].startswith(reason)
    until(lambda: local.rows("SELECT count(*) FROM telemetry") == [(1,)], "the right one")


@pytest.fixture
def measurements(local: Site) -> Measurements:
    return local.worker()._measurements


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    payload=st.dictionaries(st.sampled_from([*VALUES, *METERS]), JSON, max_size=3),
    changes=st.dictionaries(
        st.sampled_from(["timestamp", "siteId", "messageId", "source", "version"]), JSON, max_size=1
    ),
    kind=st.sampled_from(["realtime", "meter"]),
)
def test_fuzz(measurements: Measurements, payload: dict[str, Any], changes: dict[str, Any], kind: str) -> None:
    import json

    base = VALUES if kind == "realtime" else METERS
    body = json.dumps(msgspec.json.decode(message(base)) | {"payload": base | payload} | changes).encode()
    for letter in measurements([delivery(body, f"acme.event.telemetry.{kind}", "vcp.ingest")]):
        assert letter.reason != INTERNAL_ERROR
