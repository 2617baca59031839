"""The sandbox's plants against a running worker: they are heard, obey, and are offline once they stop."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from domain import vcp
from infra.local_broker import LocalBroker
from infra.sandbox.esm_plants import SandboxPlant
from infra.sandbox.gateway import Answer, Gateway
from infra.sandbox.physics import PlantModel
from infra.sandbox.plants import SimulatedPlants
from tests.worker.site import Site, setpoint, until

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def simulated(site: Site, back_fill: timedelta = timedelta(0)) -> SimulatedPlants:
    return SimulatedPlants(site.outside, "acme", [(site.plant_id, "esm-001")], interval_s=0.1, back_fill=back_fill)


def test_they_tell_of_themselves_and_do_as_they_are_told(site: Site) -> None:
    site.worker()
    with simulated(site) as plants:
        until(lambda: len(site.rows("SELECT 1 FROM telemetry")) >= 2, "telemetry")
        until(lambda: len(site.rows("SELECT 1 FROM meter_readings")) >= 3, "meters")
        followed = site.partner.send("command.site-setpoint", "esm-001", setpoint())
        too_much = site.partner.send("command.site-setpoint", "esm-001", setpoint(targetValueKw=1e6))
        stop = site.partner.send("command.emergency", "esm-001", {"action": "STOP"})
        site.reaches(followed, "EXECUTED")
        site.reaches(too_much, "FAILED")
        site.reaches(stop, "EXECUTED")
        assert plants.gateways[site.plant_id].model.stopped
    offline = site.partner.send("command.emergency", "esm-001", {"action": "RELEASE"})
    site.reaches(offline, "ACCEPTED")
    assert site.rows("SELECT count(*) FROM measurement_conflicts") == [(0,)]


def test_they_tell_of_the_last_day_first(local: Site) -> None:
    local.worker()
    with simulated(local, back_fill=timedelta(hours=24)):
        until(lambda: local.rows("SELECT count(*) FROM telemetry")[0][0] >= 1440, "a day of telemetry")
        until(lambda: local.rows("SELECT count(DISTINCT minute) FROM meter_1m")[0][0] >= 1440, "a day of meters")
    assert local.dead_count() == 0


def test_a_history_of_too_many_messages_is_coarser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.sandbox.plants.BACK_FILL_MESSAGES", 1000)
    many = [(UUID(int=number), f"p-{number}") for number in range(5)]
    plants = SimulatedPlants(LocalBroker(), "acme", many, back_fill=timedelta(hours=24))
    assert 900 < sum(1 for _ in plants.history(NOW)) <= 1000


# --- one gateway
def gateway() -> Gateway:
    return Gateway("esm-001", PlantModel(SandboxPlant("esm-001", "Brno").site()))


def told(kind: str, payload: dict[str, object], number: int = 1, at: datetime = NOW) -> bytes:
    body = {"commandId": str(UUID(int=number)), "type": kind, "ts": vcp.rfc3339(at), "payload": payload}
    return msgspec.json.encode(body)


def outcome(plant: Gateway, body: bytes) -> Answer:
    received, ended = plant.take(body, NOW)
    assert received.status == "RECEIVED"
    return ended


def test_a_command_that_comes_again_is_done_once() -> None:
    plant = gateway()
    stop = told("command.emergency", {"action": "STOP"})
    outcome(plant, stop)
    plant.model.release()
    assert outcome(plant, stop).status == "EXECUTED"
    assert not plant.model.stopped


def test_energy_is_a_mean_power() -> None:
    plant = gateway()
    energy = {"type": "ENERGY", "targetValueKwh": 10, "intervalMinutes": 15, "direction": "IMPORT"}
    assert outcome(plant, told("command.site-setpoint", energy)).status == "EXECUTED"
    assert plant.model.setpoint is not None
    assert plant.model.setpoint.target_kw == 40


def test_an_older_setpoint_does_not_undo_a_newer_one() -> None:
    plant = gateway()
    outcome(plant, told("command.site-setpoint", setpoint(targetValueKw=20)))
    late = told("command.site-setpoint", setpoint(), 2, NOW - timedelta(minutes=1))
    assert outcome(plant, late).detail == "superseded by a later setpoint"


def test_what_is_no_command_is_not_answered_and_what_makes_no_sense_failed() -> None:
    plant = gateway()
    assert list(plant.take(b"{", NOW)) == []
    assert list(plant.take(b"[]", NOW)) == []
    assert outcome(plant, told("command.site-setpoint", {"type": "POWER"})).status == "FAILED"
    assert outcome(plant, told("schedule.create", {"slots": []}, 2)).status == "EXECUTED"
