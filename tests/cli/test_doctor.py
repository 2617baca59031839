"""The doctor finds what is planted, and names the remedy; a sound installation has no fault."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, tzinfo

import pytest
from psycopg.conninfo import make_conninfo
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from domain import topology
from infra.doctor.plugins import plugins_finding
from infra.doctor.traces import traces_finding
from infra.embedded import PrivateRabbitmq
from infra.event_mapper import EventMapper
from infra.operator_keys import OperatorKey
from infra.partner_auth import PLUGINS
from infra.postgres import connect
from infra.rabbitmq import RabbitBroker
from infra.serving import Serving
from infra.settings import Settings
from projections import partitions
from projections.follower import Follower
from projections.read_models import READ_MODELS
from tests.cli.conftest import Run


class Patient:
    """A sound installation, with a worker's follower and an organisation that trades."""

    def __init__(self, run: Run, url: str, amqp_url: str, management_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url, self.amqp_url, self.management_url = url, amqp_url, management_url
        self.set = monkeypatch.setenv
        self.run = run

    def execute(self, statement: str) -> None:
        with connect(self.url, "test") as connection:
            connection.execute(statement.format(database=connection.info.dbname).encode())

    def found(self, status: int) -> dict[str, dict[str, str]]:
        return {each["check"]: each for each in json.loads(self.run("doctor", "--json", status=status))}


Plant = Callable[[Patient], None]


@pytest.fixture
def patient(
    run: Run, database_url: str, amqp_url: str, rabbitmq_server: PrivateRabbitmq, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Patient]:
    monkeypatch.setenv("WATTLEDGER_AMQP_URL", amqp_url)
    broker = RabbitBroker(amqp_url)
    broker.declare(topology.shared())
    with connect(database_url, "test") as connection:
        partitions.ensure(connection)
    management_url = rabbitmq_server.management_url.replace("//", "//guest:guest@")
    sound = Patient(run, database_url, amqp_url, management_url, monkeypatch)
    # The tests' server forgets its last moments when it dies, which no real one does.
    monkeypatch.setattr("infra.doctor.database.DURABLE", ["synchronous_commit"])
    sound.execute("ALTER DATABASE {database} SET synchronous_commit = on")
    with _following(database_url):
        yield sound
    broker.close()


@contextmanager
def _following(url: str) -> Iterator[None]:
    stop = threading.Event()
    follower = Follower(
        "projector", READ_MODELS, lambda: connect(url, "follower"), EventMapper().decoder, announces=True
    )
    thread = threading.Thread(target=follower.run, args=[stop])
    thread.start()
    assert follower.active.wait(60)
    yield
    stop.set()
    thread.join()


def test_a_sound_installation_has_no_fault(patient: Patient) -> None:
    verdicts = {name: each["verdict"] for name, each in patient.found(0).items()}
    warned = {name for name, verdict in verdicts.items() if verdict == "warning"}
    assert warned == {"identity provider", "partner logins"}
    assert len(verdicts) == 20


def test_it_prints_a_table_for_people(patient: Patient, run: Run) -> None:
    assert "every migration is applied" in run("doctor")
    assert "WATTLEDGER_JWT_JWKS_URL" in run("doctor", "--strict", status=1)


def _lost_key(patient: Patient) -> None:
    patient.run("orgs", "create", "acme")
    patient.run("keys", "mint", "acme", "--scope", "trading:read")
    patient.set("WATTLEDGER_SECRET_KEYS", str(OperatorKey.random()))


def _parked(patient: Patient) -> None:
    patient.execute(
        "INSERT INTO slots (name, parked_at, error) VALUES ('plants', 7, 'no such field')"
        " ON CONFLICT (name) DO UPDATE SET parked_at = 7, error = 'no such field'"
    )


def _missing_queue(patient: Patient) -> None:
    with closing(RabbitBroker(patient.amqp_url)) as broker:
        broker.delete([topology.INGEST_QUEUE])


def _not_the_owner(patient: Patient) -> None:
    patient.execute(
        "CREATE ROLE {database} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {database};"
        " ALTER ROLE {database} IN DATABASE {database} SET synchronous_commit = on"
    )
    with connect(patient.url, "test") as connection:
        patient.set("WATTLEDGER_DATABASE_URL", make_conninfo(patient.url, user=connection.info.dbname))


def _settings(**settings: str) -> Plant:
    def plant(patient: Patient) -> None:
        for name, value in settings.items():
            patient.set(f"WATTLEDGER_{name}", value)

    return plant


def _unplugged(patient: Patient) -> None:
    """The tests' node has the management alone."""
    patient.set("WATTLEDGER_RABBITMQ_AUTH_NETWORK", "127.0.0.0/8")
    patient.set("WATTLEDGER_RABBITMQ_MANAGEMENT_URL", patient.management_url)


def _statement(statement: str) -> Plant:
    return lambda patient: patient.execute(statement)


def _elsewhere(change: Callable[[str], str]) -> Plant:
    return lambda patient: patient.set("WATTLEDGER_AMQP_URL", change(patient.amqp_url))


FAULTS: dict[str, tuple[Plant, str, str]] = {
    "database down": (
        _settings(DATABASE_URL="postgresql://127.0.0.1:1/x"), "database", "can't be reached.*WATTLEDGER_DATABASE_URL"
    ),
    "not durable": (
        _statement("ALTER DATABASE {database} SET synchronous_commit = off"), "durability", "synchronous_commit.*on"
    ),
    "not migrated": (
        _statement("DELETE FROM schema_migrations WHERE number = 5"), "schema", "0005_.*`wattledger migrate`"
    ),
    "not the owner": (_not_the_owner, "database rights", "may not create tables in public.*GRANT CREATE"),
    "parked slot": (_parked, "slots", "plants stopped at event 7: no such field.*projections resume plants"),
    "lost key": (_lost_key, "secret keys", "is not among the secret keys.*WATTLEDGER_SECRET_KEYS"),
    "broker down": (_elsewhere(lambda _: "amqp://127.0.0.1:1"), "broker", "can't be reached.*WATTLEDGER_AMQP_URL"),
    "wrong password": (
        _elsewhere(lambda url: re.sub("//.*@", "//guest:wrong@", url)), "broker", "password.*rabbitmqctl add_user"
    ),
    "no virtual host": (
        _elsewhere(lambda url: f"{url.rsplit('/', 1)[0]}/nowhere"), "broker", "nowhere does not exist.*add_vhost"
    ),
    "missing queue": (_missing_queue, "queues", f"missing: {topology.INGEST_QUEUE}.*`wattledger work`"),
    "missing plugins": (
        _unplugged, "plugins", "not enabled: rabbitmq_auth_backend_http.*`rabbitmq-plugins enable rabbitmq_auth"
    ),
    "no JWKS": (
        _settings(JWT_JWKS_URL="http://127.0.0.1:1/", JWT_ISSUER="us", JWT_AUDIENCE="us"),
        "identity provider", "ConnectError.*WATTLEDGER_JWT_JWKS_URL",
    ),
    "no issuer": (_settings(JWT_SECRET="s" * 40), "identity provider", "every JWT is refused.*WATTLEDGER_JWT_ISSUER"),
}  # fmt: skip


@pytest.mark.parametrize(("plant", "check", "told"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found_with_its_remedy(patient: Patient, plant: Plant, check: str, told: str) -> None:
    plant(patient)
    found = {name: each for name, each in patient.found(1).items() if each["verdict"] == "fault"}
    assert list(found) == [check]
    assert re.search(told, f"{found[check]['found']} → {found[check]['remedy']}")


def test_without_a_worker_nobody_follows_the_log(run: Run, monkeypatch: pytest.MonkeyPatch, amqp_url: str) -> None:
    monkeypatch.setenv("WATTLEDGER_AMQP_URL", amqp_url)
    found = {each["check"]: each for each in json.loads(run("doctor", "--json", status=1))}
    assert found["worker"]["verdict"] == "fault"
    assert found["partitions"]["verdict"] == "warning"
    assert "`wattledger work`" in found["queues"]["remedy"]


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ([{"enabled_plugins": [*PLUGINS, "rabbitmq_management"]}], "all are enabled"),
        ([{"enabled_plugins": list(PLUGINS)}, {"enabled_plugins": [PLUGINS[0]]}], f"not enabled: {PLUGINS[1]}"),
        ([], "can't be seen: no node answers"),
        ({"error": "not_authorised"}, "can't be seen: TypeError"),
    ],
)
def test_plugins_are_needed_on_every_node(nodes: object, found: str) -> None:
    async def answer(_: Request) -> Response:
        return JSONResponse(nodes)

    with Serving(Starlette(routes=[Route("/api/nodes", answer)])) as management:
        settings = Settings(rabbitmq_auth_network="10.0.0.0/8", rabbitmq_management_url=management.url)
        assert plugins_finding(settings).found == found
    gone = plugins_finding(settings)
    assert (gone.verdict, gone.found) == ("warning", "can't be seen: ConnectError")
    assert "WATTLEDGER_RABBITMQ_MANAGEMENT_URL" in gone.remedy


def test_traces_are_taken_or_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def collect(request: Request) -> Response:
        return Response(status_code=200 if await request.body() == b"" else 400)

    with Serving(Starlette(routes=[Route("/v1/traces", collect, methods=["POST"])])) as collector:
        settings = Settings(otlp_url=f"{collector.url}/v1/traces")
        assert traces_finding(settings).found == "taken by 127.0.0.1"
        elsewhere = traces_finding(Settings(otlp_url=f"{collector.url}/elsewhere"))
    assert (elsewhere.verdict, elsewhere.found) == ("warning", "they are lost: HTTPStatusError")
    assert traces_finding(settings).found == "they are lost: ConnectError"
    monkeypatch.setattr("infra.doctor.traces.find_spec", lambda _: None)
    missing = traces_finding(settings)
    assert (missing.verdict, missing.remedy) == ("fault", "`pip install 'wattledger[otel]'`")


def test_a_clock_that_is_off_is_found(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Late":
            return super().now(tz) - timedelta(minutes=1)

    monkeypatch.setattr("infra.doctor.database.datetime", Late)
    clock = patient.found(1)["clock"]
    assert clock["found"] == "the database's clock is +60.0 s from this machine's"
    assert "NTP" in clock["remedy"]
