"""The sandbox's own routes, and the plausible days of its plants."""

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import get_args

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.sandbox.esm import SandboxEsm
from infra.sandbox.esm_plants import SandboxPlant, SandboxPlants, believable_plants
from infra.sandbox.faults import FaultName
from infra.sandbox.physics import PlantModel, Setpoint, Site, flows
from interfaces.cli import main

MIDSUMMER = datetime(2026, 6, 21, tzinfo=UTC)
SITE = Site("brno", capacity_kwh=200, max_power_kw=100, fve_peak_power_kwp=120, load_kw=60)
TELEMETRY = {
    *("gridPowerKw", "fvePowerKw", "batteryPowerKw", "consumptionPowerKw", "socPercent", "fveReg"),
    *("availableBatteryEnergyKwh", "batteryTemperatureCelsius", "currentOperatingMode", "dataQuality"),
}


def test_plants_are_added_changed_and_removed_over_http(sandbox: SandboxEsm) -> None:
    with httpx.Client(base_url=f"{sandbox.url}/sandbox", trust_env=False) as admin:
        added = admin.post("/plants", json={"plantId": "esm-new", "name": "New", "latePolls": 3})
        assert (added.status_code, added.json()["version"]) == (200, 1)
        assert admin.patch("/plants/esm-new", json={"name": "Newer"}).json()["latePolls"] == 3
        assert admin.delete("/plants/esm-001").status_code == 204
        shown = [(plant["plantId"], plant["name"]) for plant in admin.get("/plants").json()]
        assert shown[0][0] == "esm-002"
        assert shown[-1] == ("esm-new", "Newer")


def test_what_it_does_not_know_is_refused(sandbox: SandboxEsm) -> None:
    with httpx.Client(base_url=f"{sandbox.url}/sandbox", trust_env=False) as admin:
        assert admin.patch("/plants/none", json={}).status_code == 404
        assert admin.delete("/plants/none").status_code == 404
        assert admin.post("/plants", json={"plantId": "x", "name": "X", "colour": "red"}).status_code == 400
        assert admin.post("/faults", json={"route": "list", "fault": "sneeze"}).status_code == 400
        for strange in (b"{", b"[1]", b"7", b'"x"', b"\xff"):
            assert admin.post("/plants", content=strange).status_code == 400
            assert admin.patch("/plants/esm-001", content=strange).status_code == 400


def test_faults_are_set_shown_and_cleared_over_http(sandbox: SandboxEsm) -> None:
    with httpx.Client(base_url=sandbox.url, trust_env=False) as client:
        assert client.post("/sandbox/faults", json={"route": "token", "fault": "502", "times": 3}).status_code == 204
        assert client.post("/trading/token").status_code == 502
        waiting = {"route": "token", "fault": "502", "times": 2, "seconds": 60.0}
        assert client.get("/sandbox/faults").json() == [waiting]
        assert client.delete("/sandbox/faults").status_code == 204
        assert client.post("/trading/token").status_code == 400


def test_a_fault_without_a_route_is_met_by_any(sandbox: SandboxEsm) -> None:
    with httpx.Client(base_url=sandbox.url, trust_env=False) as client:
        assert client.post("/sandbox/faults", json={"fault": "503", "times": 2}).status_code == 204
        statuses = [client.post("/trading/token"), client.get("/trading/plant/list"), client.get("/trading/plant/list")]
        assert [answer.status_code for answer in statuses] == [503, 503, 401]


def test_a_reset_cuts_the_connection(sandbox: SandboxEsm) -> None:
    with httpx.Client(base_url=sandbox.url, trust_env=False) as client:
        client.post("/sandbox/faults", json={"fault": "reset"})
        with pytest.raises(httpx.ReadError):
            client.post("/trading/token")
        assert client.post("/trading/token").status_code == 400


@pytest.mark.parametrize("fault", ["refused", "tls"])
def test_a_port_goes_away_for_its_time_and_comes_back(sandbox: SandboxEsm, fault: str) -> None:
    with httpx.Client(base_url=sandbox.url, trust_env=False) as client:
        assert client.post("/sandbox/faults", json={"fault": fault, "seconds": 600}).status_code == 204
        for _ in range(3):
            # Who speaks no TLS gets an answer that is no HTTP.
            with pytest.raises(httpx.ConnectError if fault == "refused" else httpx.TransportError):
                client.post("/trading/token")
        sandbox.reset()
        assert client.post("/trading/token").status_code == 400
        client.post("/sandbox/faults", json={"fault": fault, "route": "token", "seconds": 0})
        assert client.post("/trading/token").status_code == 400
        sandbox.reset()
        assert client.post("/trading/token").status_code == 400


@pytest.mark.parametrize("fault", get_args(FaultName))
def test_every_fault_may_be_asked_for_over_the_admin_route_and_the_cli(
    sandbox: SandboxEsm, fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["wattledger", "sandbox", "faults", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    run("add", fault, "--route", "list", "--times", "2", "--seconds", "3", "--url", sandbox.url)
    expected = {"route": "list", "fault": fault, "times": 2, "seconds": 3.0}
    assert json.loads(run("show", "--json", "--url", sandbox.url)) == [expected]
    run("clear", "--url", sandbox.url)
    assert httpx.get(f"{sandbox.url}/sandbox/faults", trust_env=False).json() == []
    httpx.post(f"{sandbox.url}/sandbox/faults", json=expected, trust_env=False).raise_for_status()
    assert [each.model_dump() for each in sandbox.faults.waiting()] == [expected]
    assert f"\n{fault} " in run("list")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("add", "sneeze"), "No fault sneeze; there are 401, "),
        (("add", "500", "--route", "lists"), "No route lists; there are token, "),
        (("add", "500", "--url", "http://127.0.0.1:9"), "No sandbox answers at http://127.0.0.1:9: start one with"),
        (("clear", "--url", "nonsense"), "No sandbox answers at nonsense"),
    ],
)
def test_what_cannot_be_spoiled_is_told_in_one_line(
    words: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wattledger", "sandbox", "faults", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"wattledger: {told}")


def test_tokens_are_required_and_can_be_revoked(sandbox: SandboxEsm) -> None:
    credentials = {
        "grant_type": "client_credentials",
        "client_id": sandbox.client_id,
        "client_secret": sandbox.client_secret,
    }
    with httpx.Client(base_url=sandbox.url, trust_env=False) as client:
        answer = client.post("/trading/token", data=credentials).json()
        bearer = {"Authorization": f"Bearer {answer['access_token']}"}
        assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
        assert client.get("/trading/plant/list", headers=bearer).status_code == 200
        assert client.get("/trading/plant/list").status_code == 401
        assert client.delete("/sandbox/tokens").status_code == 204
        assert client.get("/trading/plant/list", headers=bearer).status_code == 401
        assert client.post("/trading/token", data={**credentials, "client_secret": "x"}).status_code == 401


def test_plants_in_any_number_are_all_different() -> None:
    plants = believable_plants(50)
    assert len({plant.plant_id for plant in plants}) == len({plant.name for plant in plants}) == 50


def test_a_late_answer_comes_with_its_time() -> None:
    now = [0.0]
    plants = SandboxPlants([SandboxPlant("p", "P", late_seconds=60)], clock=lambda: now[0])
    code = plants.update("p", 1, [], validate_only=False).request_code
    assert code is not None
    assert not plants.status(code).is_terminal
    now[0] = 60
    assert plants.status(code).is_terminal


def test_the_sun_shines_by_day_and_the_battery_takes_what_is_left() -> None:
    model = PlantModel(SITE, soc=20)
    day = [model.step(MIDSUMMER + timedelta(minutes=5 * slot)) for slot in range(289)]
    assert all(sample.flows.fve_kw == 0 for sample in day[:24])
    assert max(sample.flows.fve_kw for sample in day) > 50
    assert max(sample.soc_percent for sample in day) > 80
    assert day[-1].export_kwh > 0
    assert 300 < day[-1].fve_kwh < 1200
    winter = PlantModel(SITE)
    winter.step(MIDSUMMER + timedelta(days=182))
    assert winter.step(MIDSUMMER + timedelta(days=183)).fve_kwh < day[-1].fve_kwh / 2


def test_a_sample_is_what_the_contract_says() -> None:
    sample = PlantModel(SITE).step(MIDSUMMER)
    assert set(sample.telemetry()) == TELEMETRY
    assert [meter["meterId"] for meter in sample.meters()] == ["import", "export", "pv"]
    assert all(set(meter) == {"meterId", "energyKwh"} for meter in sample.meters())


def test_a_setpoint_is_followed_at_the_grid_meter_until_it_ends() -> None:
    model = PlantModel(SITE)
    model.step(MIDSUMMER)
    assert model.apply_setpoint("IMPORT", 70, valid_until=MIDSUMMER + timedelta(minutes=15))
    during = model.step(MIDSUMMER + timedelta(minutes=5))
    assert (during.flows.mode, round(during.flows.grid_kw, 6)) == ("SETPOINT", 70)
    assert during.flows.battery_kw > 0
    assert model.step(MIDSUMMER + timedelta(minutes=15)).flows.mode == "DAY_PLAN"


def test_without_consumption_the_battery_alone_follows() -> None:
    model = PlantModel(SITE)
    assert model.apply_setpoint("EXPORT", 40, include_consumption=False)
    assert model.step(MIDSUMMER).flows.battery_kw == -40


@pytest.mark.parametrize(("target", "with_load"), [(-1, True), (1000, True), (101, False)])
def test_a_setpoint_beyond_its_power_changes_nothing(target: float, with_load: bool) -> None:
    model = PlantModel(SITE)
    assert not model.apply_setpoint("IMPORT", target, include_consumption=with_load)
    assert model.setpoint is None


def test_stopped_it_stands_still_and_released_it_goes_on() -> None:
    model = PlantModel(SITE)
    noon = MIDSUMMER + timedelta(hours=11)
    model.apply_setpoint("EXPORT", 50)
    model.stop()
    stopped = model.step(noon)
    assert (stopped.flows.mode, stopped.flows.battery_kw, stopped.flows.fve_kw) == ("STOPPED", 0, 0)
    assert stopped.flows.grid_kw == stopped.flows.consumption_kw
    model.release()
    assert model.step(noon + timedelta(minutes=1)).flows.mode == "SETPOINT"


@settings(deadline=None, max_examples=50)
@given(
    plant=st.sampled_from(believable_plants(3)),
    minutes=st.lists(st.integers(1, 600), min_size=1, max_size=8),
    target=st.none() | st.floats(-1000, 1000),
    soc=st.floats(0, 100),
)
def test_power_balances_and_meters_only_count_up(
    plant: SandboxPlant, minutes: list[int], target: float | None, soc: float
) -> None:
    model = PlantModel(plant.site(), soc=soc)
    model.setpoint = None if target is None else Setpoint(target)
    at = MIDSUMMER
    before = model.step(at)
    for step in minutes:
        at += timedelta(minutes=step)
        sample = model.step(at)
        power = sample.flows
        assert power.grid_kw == pytest.approx(power.consumption_kw + power.battery_kw - power.fve_kw)
        assert abs(power.battery_kw) <= plant.max_power_kw
        assert 0 <= sample.soc_percent <= 100
        assert sample.import_kwh >= before.import_kwh
        assert sample.export_kwh >= before.export_kwh
        assert sample.fve_kwh >= before.fve_kwh
        before = sample


@settings(deadline=None)
@given(st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)), st.floats(0, 100))  # noqa: DTZ001
def test_the_same_moment_is_always_the_same(at: datetime, soc: float) -> None:
    assert flows(SITE, at, soc) == flows(SITE, at, soc)
    assert flows(SITE, at, soc).fve_kw <= SITE.fve_peak_power_kwp
