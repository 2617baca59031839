"""The main job from end to end: real PostgreSQL, real RabbitMQ, the sandbox ESM over HTTP, a plain AMQP client."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pika
import psycopg
import pytest

from application.context import Metadata, acting
from infra.bootstrap import Parts, Where, assembled
from infra.sandbox.esm import SandboxEsm
from infra.secret_box import OperatorKey
from infra.serving import Serving
from infra.settings import Settings
from infra.tracing import Tracing
from interfaces.cli.wiring import api, working
from interfaces.http.operations_schema import READY
from tests.amqp_client import AmqpClient
from tests.signing import signed

PLAN = {"from": "00:00", "to": "24:00", "pBatMin": -5, "pBatMax": 5, "socMin": 10, "socMax": 90}


@dataclass
class System:
    """A running Wattledger and its neighbours, as each of them sees it."""

    parts: Parts
    http: httpx.Client
    esm: SandboxEsm
    partner: AmqpClient
    gateway: AmqpClient
    amqp_url: str
    database_url: str

    def call(self, method: str, path: str, **options: Any) -> Any:
        answer = self.http.request(method, f"/api/v1/trading{path}", **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def has_queue(self, name: str) -> bool:
        with pika.BlockingConnection(pika.URLParameters(self.amqp_url)) as connection:
            try:
                connection.channel().queue_declare(name, passive=True)
            except pika.exceptions.ChannelClosedByBroker:
                return False
        return True


@pytest.fixture
def system(database_url: str, amqp_url: str) -> Iterator[System]:
    with ExitStack() as stack:
        yield running(stack, database_url, amqp_url)


def running(stack: ExitStack, database_url: str, amqp_url: str, tracing: Tracing | None = None) -> System:
    """Until the stack unwinds."""
    where = Where(database_url, amqp_url, [OperatorKey.random()], ["127.0.0.0/8"])
    settings = Settings(reads_per_minute=100_000)
    esm = stack.enter_context(SandboxEsm())
    parts = stack.enter_context(assembled(where, settings, tracing=tracing))
    stack.enter_context(working(parts, settings))
    server = stack.enter_context(Serving(api(parts, settings), lifespan="on"))
    http = stack.enter_context(httpx.Client(base_url=server.url, trust_env=False, timeout=60))
    partner = stack.enter_context(AmqpClient(amqp_url))
    gateway = stack.enter_context(AmqpClient(amqp_url))
    return System(parts, http, esm, partner, gateway, amqp_url, database_url)


def test_the_main_job(system: System) -> None:
    signing_key = organisation_with_keys(system)
    configured_and_enabled(system)
    plant_id = synced(system)
    plant_config_changed(system, plant_id)
    command_relayed(system, plant_id, signing_key)
    measured(system, plant_id)
    watched(system)
    disabled(system)


def organisation_with_keys(system: System) -> str:
    with acting(Metadata(actor="cli", source="cli")):
        organisation = system.parts.organisations.create("acme", "Acme Energy")
        admin = system.parts.organisations.mint_key(organisation.id, "admin", ["trading:admin"])
        connect = system.parts.organisations.mint_key(organisation.id, "connect", ["trading:connect"])
    system.http.headers["X-API-Key"] = admin.api_key
    eventually(lambda: system.http.get("/api/v1/trading/config").status_code == 200)
    return connect.signing_key


def configured_and_enabled(system: System) -> None:
    partner = {
        "esmApiUrl": system.esm.url,
        "esmClientId": system.esm.client_id,
        "esmClientSecret": system.esm.client_secret,
    }
    assert system.call("POST", "/config", json=partner)["hasEsmCredentials"] is True
    assert system.call("POST", "/config/enable")["status"] == "ENABLED"
    assert system.call("GET", "/config")["status"] == "ENABLED"
    for queue in system.call("GET", "/connection-details")["queues"]:
        assert system.has_queue(queue["name"])


def synced(system: System) -> str:
    assert system.call("POST", "/plants/sync") == {"synced": 3, "errors": 0}
    config = system.call("GET", "/config")
    assert config["lastSyncAt"] is not None
    assert config["lastSyncError"] is None
    plants = system.call("GET", "/plants")
    assert plants["meta"]["total"] == 3
    assert all(plant["linked"] and plant["lastSeenAt"] for plant in plants["data"])
    return next(str(plant["id"]) for plant in plants["data"] if plant["externalPlantId"] == "esm-001")


def plant_config_changed(system: System, plant_id: str) -> None:
    before = system.call("GET", f"/plants/{plant_id}/config")
    checked = system.call("POST", f"/plants/{plant_id}/config/validate", json={"timeConfigs": [PLAN]})
    assert checked["validateOnly"] is True
    assert system.call("GET", f"/plants/{plant_id}/config") == before
    changed = system.call("POST", f"/plants/{plant_id}/config", json={"timeConfigs": [PLAN]})
    assert (changed["isError"], changed["isTerminal"]) == (False, True)
    assert system.call("GET", f"/plants/{plant_id}/config")["version"] > before["version"]
    log = system.call("GET", f"/plants/{plant_id}/config-log")
    assert [entry["id"] for entry in log["data"]] == [changed["id"], checked["id"]]
    assert log["data"][0] == changed


def command_relayed(system: System, plant_id: str, signing_key: str) -> None:
    gateway_queue = "gateway"
    system.gateway.declare(gateway_queue, "plant", f"plant.{plant_id}.command")
    message = signed(setpoint("esm-001"), signing_key)
    assert system.partner.publish("vcp", "acme.command.site-setpoint", message)
    ack = system.partner.get_until("vcp.acme.event.status", 1)[0]
    assert ack.routing_key == "acme.event.command.ack"
    assert ack.json()["payload"] == {"messageId": message["messageId"], "status": "ACCEPTED"}
    assert ack.json()["correlationId"] == message["correlationId"]
    command = system.gateway.get_until(gateway_queue, 1)[0].json()
    assert command["payload"] == message["payload"]

    executed_at = "2026-11-23T08:00:00.000Z"
    result = {"commandId": command["commandId"], "status": "EXECUTED", "ts": executed_at}
    assert system.gateway.publish("plant", f"plant.{plant_id}.ack", result)
    execution = system.partner.get_until("vcp.acme.event.execution", 1)[0].json()
    assert execution["payload"] == {
        "messageId": message["messageId"],
        "status": "EXECUTED",
        "executedAt": executed_at,
    }
    path = f"/plants/{plant_id}/command-log"
    eventually(lambda: [entry["status"] for entry in system.call("GET", path)["data"]] == ["EXECUTED"])
    entry = system.call("GET", path)["data"][0]
    assert (entry["id"], entry["ackStatus"]) == (command["commandId"], "ACK")
    assert (entry["siteId"], entry["messageId"]) == ("esm-001", message["messageId"])
    assert entry["executedAt"] == executed_at


def measured(system: System, plant_id: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    for seconds, power in ((120, 4.0), (60, 8.0)):
        at = (now - timedelta(seconds=seconds)).isoformat()
        telemetry = {"gridPowerKw": power, "socPercent": 55.5, "dataQuality": "GOOD"}
        assert system.gateway.publish(
            "vcp", "acme.event.telemetry.realtime.esm-001", envelope("esm-001", telemetry, at)
        )
        meter = {"readingAt": at, "meters": [{"meterId": "import", "energyKwh": 100 + power}]}
        assert system.gateway.publish("vcp", "acme.event.telemetry.meter.esm-001", envelope("esm-001", meter, at))
    latest_path = f"/plants/{plant_id}/telemetry/latest"
    eventually(lambda: system.call("GET", latest_path)["grid_power"] == 8.0)
    rows = system.call("GET", f"/plants/{plant_id}/telemetry", params={"bucket": 1})
    assert [row["grid_power"] for row in rows] == [4.0, 8.0]
    eventually(lambda: len(system.call("GET", f"/plants/{plant_id}/meters", params={"bucket": 1})) == 2)
    meters = system.call("GET", f"/plants/{plant_id}/meters", params={"bucket": 1})
    assert [(row["meter_id"], row["energy"], row["interval"]) for row in meters] == [
        ("import", 0.0, "PT1M"),
        ("import", 4.0, "PT1M"),
    ]
    # The partner reads the same from its own queue.
    assert len(system.partner.get_until("vcp.acme.event.telemetry", 4)) == 4


def watched(system: System) -> None:
    metrics = system.http.get("/metrics").text
    assert 'wattledger_slot_parked{slot="command_log"} 0.0' in metrics
    assert 'wattledger_slot_lag_events{slot="publisher"}' in metrics
    assert "wattledger_measurements_total" in metrics
    # As documented, but for how far it is.
    assert system.http.get("/api/v1/health/live").json() == {"status": "live"}
    eventually(lambda: _kinds(system.http.get("/api/v1/health/ready").json()) == _kinds(READY))
    ready = system.http.get("/api/v1/health/ready").json()
    assert (ready["status"], ready["checks"]) == (READY["status"], READY["checks"])
    assert date.fromisoformat(ready["measurementsUntil"]) > datetime.now(UTC).date()


def _kinds(value: Any) -> Any:
    return {name: _kinds(each) for name, each in value.items()} if isinstance(value, dict) else type(value)


def disabled(system: System) -> None:
    queues = system.call("GET", "/connection-details")["queues"]
    assert system.call("POST", "/config/disable")["status"] == "DISABLED"
    assert not any(system.has_queue(queue["name"]) for queue in queues)
    with psycopg.connect(system.database_url) as connection:
        sources = connection.execute("SELECT DISTINCT metadata->>'source' FROM events ORDER BY 1").fetchall()
    assert [source for (source,) in sources] == ["amqp", "cli", "follower", "http"]


def setpoint(site_id: str) -> dict[str, Any]:
    payload = {"type": "POWER", "targetValueKw": 2.5, "direction": "EXPORT", "priority": "NORMAL"}
    return envelope(site_id, {**payload, "validFrom": datetime.now(UTC).isoformat()}) | {"correlationId": "day-1"}


def envelope(site_id: str, payload: dict[str, Any], timestamp: str | None = None) -> dict[str, Any]:
    return {
        "version": "1.1",
        "messageId": str(uuid4()),
        "timestamp": timestamp or datetime.now(UTC).isoformat(),
        "source": "partner",
        "siteId": site_id,
        "payload": json.loads(json.dumps(payload)),
    }


def eventually(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    """Waits on what another process or thread will do; fails when it never does."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
