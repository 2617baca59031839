"""What lies ready for operators fits the code: every metric that a panel or an alert asks for is shown."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry

from infra.bootstrap import Where, assembled
from infra.embedded import EmbeddedPostgres
from infra.embedded.processes import free_ports
from infra.local_broker import LocalBroker
from infra.metrics import PoolMetrics, QueueMetrics
from infra.operator_keys import OperatorKey
from infra.postgres import connect
from infra.serving import Serving
from infra.settings import Settings
from interfaces.cli.wiring import api, showing_metrics
from interfaces.http.audit_metrics import AuditMetrics
from interfaces.http.edge import HttpMetrics
from interfaces.http.slot_metrics import SlotMetrics
from tests.servers import database

DEPLOY = Path(__file__).parent.parent / "infra" / "deploy"
ALERTS = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
PANELS = json.loads((DEPLOY / "dashboard.json").read_text())["panels"]
ASKED = {alert["alert"]: alert["expr"] for alert in ALERTS} | {
    panel["title"]: " ".join(target["expr"] for target in panel["targets"]) for panel in PANELS
}
OF_A_HISTOGRAM = re.compile("_(bucket|sum|count)$")


@pytest.fixture(scope="module")
def shown(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[dict[str, set[str]]]:
    """The names at /metrics of the API and of a worker."""
    with ExitStack() as stack:
        url = stack.enter_context(database(postgres_server, migrated_template))
        settings = Settings(metrics_port=free_ports(1)[0])
        parts = stack.enter_context(assembled(Where(url, None, [OperatorKey.random()], []), settings, LocalBroker()))
        server = stack.enter_context(Serving(api(parts, settings), lifespan="on"))
        stack.enter_context(showing_metrics(parts, settings))
        places = {"api": f"{server.url}/metrics", "worker": f"http://127.0.0.1:{settings.metrics_port}/metrics"}
        yield {
            name: set(re.findall(r"^# TYPE (\S+) ", httpx.get(place).text, re.MULTILINE))
            for name, place in places.items()
        }


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_what_a_panel_or_an_alert_asks_for_is_shown(shown: dict[str, set[str]], asked: str) -> None:
    names = {OF_A_HISTOGRAM.sub("", name) for name in re.findall(r"wattledger_\w+", asked)}
    assert names <= shown["api"] | shown["worker"]


def _labels() -> dict[str, set[str]]:
    """Of each metric that our code has, by its name."""
    of_http = CollectorRegistry()
    HttpMetrics(of_http)
    ours = (SlotMetrics(list), AuditMetrics(list), PoolMetrics({}), QueueMetrics([], lambda _: {}))
    kept = [metric for registry in (REGISTRY, of_http) for metric in registry._collector_to_names]
    labels = {name: set(each._labelnames) for each in kept if hasattr(each, "_labelnames") for name in _names(each)}
    return labels | {family.name: set(family._labelnames) for each in ours for family in each.describe()}  # type: ignore[attr-defined]


def _names(metric: Any) -> set[str]:
    return {metric._name, f"{metric._name}_total"}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_it_asks_for_labels_that_they_have(asked: str) -> None:
    labels = _labels() | {"rabbitmq_detailed_queue_messages_ready": {"queue"}, "up": {"job"}}
    had = {"le"}
    for name, selected in re.findall(r"\b((?:wattledger|rabbitmq)_\w+|up)\b(?:\{([^}]*)\})?", asked):
        of_name = labels.get(OF_A_HISTOGRAM.sub("", name), labels.get(name.removesuffix("_total"), set()))
        assert set(re.findall(r"(\w+)\s*[=!]", selected)) <= of_name
        had |= of_name
    for grouped in re.findall(r"\bby \(([^)]*)\)", asked):
        assert set(grouped.replace(",", " ").split()) <= had


def test_a_worker_shows_what_happens_in_it(shown: dict[str, set[str]]) -> None:
    assert {"wattledger_messages_total", "wattledger_refusals_total", "wattledger_slot_lag_seconds"} <= shown["worker"]


def test_every_alert_names_its_remedy() -> None:
    assert all(alert["annotations"].keys() == {"summary", "remedy"} for alert in ALERTS)


def test_the_compose_file_gives_what_a_process_needs() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    given = {name.removeprefix("WATTLEDGER_").lower() for name in services["worker"]["environment"]}
    assert given <= Settings.model_fields.keys()
    assert {"database_url", "amqp_url", "secret_keys"} <= given
    assert [services[name]["command"] for name in ("migrate", "api", "worker")] == [["migrate"], ["serve"], ["work"]]


def test_what_is_said_to_be_sharded_can_be(database_url: str) -> None:
    """By a column that is in every unique key; and it is partitioned as it says, and nothing else is."""
    page = (DEPLOY / "SCALING.md").read_text()
    said = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (?:`(\w+)`, \w+ly)? ?\|$", page, re.MULTILINE)
    with connect(database_url, "test") as connection:
        keys = connection.execute(
            "SELECT i.indrelid::regclass::text, array_agg(a.attname) FROM pg_index i JOIN pg_attribute a"
            " ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) WHERE i.indisunique GROUP BY i.indexrelid, 1"
        ).fetchall()
        parted = connection.execute(
            "SELECT partrelid::regclass::text, attname FROM pg_partitioned_table JOIN pg_attribute"
            " ON attrelid = partrelid AND attnum = partattrs[0]"
        ).fetchall()
    assert {(table, time) for table, _, time in said if time} == set(parted)
    by_table = {table: column for table, column, _ in said}
    assert by_table.keys() >= {"telemetry", "telemetry_latest", "meters"}
    assert {table for table, _ in keys} >= by_table.keys()
    assert [(table, key) for table, key in keys if table in by_table and by_table[table] not in key] == []


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").iterdir()), ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_exists(unit: Path) -> None:
    text = unit.read_text()
    assert re.search(r"^ExecStart=/opt/wattledger/bin/wattledger (serve|work)$", text, re.MULTILINE)
    assert {name.lower() for name in re.findall(r"WATTLEDGER_(\w+)=", text)} <= Settings.model_fields.keys()
