"""The certification scenarios against a whole installation on a real broker: they pass, and tell when they don't."""

import json
import logging
from collections.abc import Iterator

import pytest

from domain import topology
from infra.rabbitmq import RabbitBroker
from infra.sandbox.certification import SCENARIOS
from infra.sandbox.plants import SimulatedPlants
from interfaces.cli import main
from tests.worker.site import Site


@pytest.fixture
def rabbit(database_url: str, amqp_url: str) -> Iterator[Site]:
    broker, outside = RabbitBroker(amqp_url), RabbitBroker(amqp_url, name="outside")
    broker.declare(topology.shared())
    site = Site(database_url, broker, outside)
    yield site
    site.close()
    outside.close()
    broker.close()


@pytest.fixture
def certified(
    rabbit: Site, amqp_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator["Certified"]:
    monkeypatch.setattr(logging.getLogger("pika"), "level", logging.CRITICAL)
    rabbit.worker()
    plants = [(rabbit.plant_id, "esm-001")]
    with SimulatedPlants(rabbit.outside, "acme", plants, interval_s=0.5):
        yield Certified(rabbit, amqp_url, monkeypatch, capsys)


class Certified:
    def __init__(
        self, site: Site, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        told = {"amqp-url": url, "prefix": "acme", "site": "esm-001", "signing-key": site.key.signing_key}
        self._told = [word for name, value in told.items() for word in (f"--{name}", value)]

    def run(self, *words: str) -> tuple[int, str]:
        self._monkeypatch.setattr("sys.argv", ["wattledger", "sandbox", "partner", *self._told, *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err


def test_all_scenarios_pass(certified: Certified) -> None:
    status, said = certified.run("--all", "--json")
    said = said[said.index("[\n") :]  # what the server logs is beside the point
    failed = [check for report in json.loads(said) for check in report["checks"] if not check["passed"]]
    assert (failed, status) == ([], 0)
    assert [report["scenario"] for report in json.loads(said)] == list(SCENARIOS)
    assert all(report["checks"] for report in json.loads(said))


def test_a_difference_is_told_and_is_the_exit_status(certified: Certified) -> None:
    status, said = certified.run("--scenario", "no-end-time", "--signing-key", "00" * 32, "--patience", "1")
    assert status == 1
    assert "no-end-time: FAILED" in said
    assert "REJECTED SIGNATURE_INVALID" in said
    status, said = certified.run("--scenario", "emergency", "--prefix", "nobody")
    assert status == 1
    assert "lost: ChannelClosedByBroker" in said


def test_what_is_asked_wrongly(certified: Certified) -> None:
    assert certified.run("--list")[0] == 0
    assert set(certified.run("--list")[1].split()) >= set(SCENARIOS)
    for words in ((), ("--all", "--scenario", "stale"), ("--scenario", "nonsense")):
        assert certified.run(*words)[0] == 2


def test_its_client_shares_no_code_with_the_server() -> None:
    import ast
    from pathlib import Path

    for name in ("partner_client", "certification"):
        tree = ast.parse((Path("infra/sandbox") / f"{name}.py").read_text())
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        ours = {each for each in imported if each.split(".")[0] in ("domain", "application", "projections", "infra")}
        assert ours <= {"infra.sandbox.partner_client"}
