"""Every documented 200 is what the server answered to one believable story, but for its ids, times and positions."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from application.context import acting
from domain import vcp
from domain.plant import Plant
from domain.relayed_command import RelayedCommand
from infra.embedded import EmbeddedPostgres
from infra.sandbox.esm_plants import SandboxPlants
from interfaces.http.endpoints import ENDPOINTS
from interfaces.http.examples import EXAMPLES
from interfaces.http.services import Streaming
from projections.meters import MeterReading, record_meters
from projections.samples import FIELDS, Sample, record_telemetry
from tests.http.conftest import PLENTY
from tests.http.world import COMMANDER, Org, World, served
from tests.servers import database

ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
PLACE = re.compile(r"\d+-\d{16}")
USER = "d834780c-1e92-44d4-9ca3-e84824c5c502"
SOON = Streaming(every_s=0.05, heart_beat_s=30)
POSITIONS = ("position", "id")
"""Numbers by these names are positions in the log."""


@dataclass
class Same:
    """Whether answers are their examples: an id stands for one id, in all of them."""

    ids: dict[str, str] = field(default_factory=dict)

    def check(self, example: Any, answer: Any, place: str = "") -> None:
        assert type(example) is type(answer), (place, example, answer)
        if isinstance(example, dict):
            assert example.keys() == answer.keys(), place
            for name, value in example.items():
                self.check(value, answer[name], f"{place}.{name}")
        elif isinstance(example, list):
            assert len(example) == len(answer), (place, answer)
            for number, value in enumerate(example):
                self.check(value, answer[number], f"{place}.{number}")
        elif isinstance(example, str):
            self._check_text(example, answer, place)
        elif place.rsplit(".", 1)[-1] not in POSITIONS:
            assert example == answer, place

    def _check_text(self, example: str, answer: str, place: str) -> None:
        ids = dict(zip(ID.findall(answer), ID.findall(example), strict=True))
        for found, expected in ids.items():
            assert self.ids.setdefault(found, expected) == expected, (place, found)
        assert len(set(self.ids.values())) == len(self.ids), (place, "one id of an example stands for two")
        assert _form(example) == _form(answer), place


def _form(text: str) -> str:
    """A time keeps how finely it is told."""
    text = re.sub(r"(?<=:\d\d)\.\d+Z", lambda found: f".{'0' * (len(found[0]) - 2)}Z", text)
    for pattern, name in ((PLACE, "place"), (ID, "id"), (TIME, r"time\1")):
        text = pattern.sub(name, text)
    return text


@dataclass
class Story:
    """An organisation as the examples know it, with one plant at its ESM."""

    org: Org
    answers: dict[str, Any] = field(default_factory=dict)
    plant_id: UUID = field(default_factory=uuid4)
    command_id: UUID = field(default_factory=uuid4)

    def tell(self, *names: str, **params: Any) -> None:
        """Asks, by the names of the handlers, with the examples of their bodies; keeps what is answered."""
        for name in names:
            method, path, options = self._request(name, params)
            answer = self.org.world.client.request(method, path, **options)
            assert answer.status_code == 200, answer.text
            is_json = answer.headers["content-type"] == "application/json"
            self.answers[name] = answer.json() if is_json else answer.text

    def follow(self, name: str, meanwhile: Callable[[], None]) -> None:
        """A stream, up to its first sample."""
        method, path, options = self._request(name, {})
        with self.org.world.client.stream(method, path, **options) as answer:
            told, pieces = "", answer.iter_text()
            while "id: " not in told:
                told += next(pieces)
            meanwhile()
            while "data: " not in told:
                told += next(pieces)
        # How many heart-beats there are is a matter of time.
        self.answers[name] = re.sub(r"(:\n(id: \S+\n)?\n)+", r":\n\2\n", told)

    def _request(self, name: str, params: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        endpoint = next(each for each in ENDPOINTS if each.handler.__name__ == name)
        body = {"json": EXAMPLES[endpoint.body.__name__]} if endpoint.body else {}
        path = endpoint.path.format(plant_id=self.plant_id, command_id=self.command_id)
        return endpoint.method, path, {"headers": self.org.jwt(sub=USER), "params": params, **body}

    def command(self) -> None:
        """One that the partner sent, and that its plant has executed."""
        example, now = EXAMPLES["command"], datetime.now(UTC)
        command: RelayedCommand = RelayedCommand._create(
            RelayedCommand.Created,
            id=self.command_id,
            organization_id=self.org.id,
            queue_prefix=self.org.slug,
            plant_id=self.plant_id,
            message_id=uuid4(),
            correlation_id=example["correlationId"],
            command_type=example["commandType"],
            type="command.site-setpoint",
            routing_key=example["routingKey"],
            site_id=example["siteId"],
            sent_at=now,
            payload={**example["payload"], "validFrom": vcp.rfc3339(now)},
            digest="0" * 64,
            signed=False,
        )
        command.accept(now + timedelta(minutes=15))
        command.relay()
        command.execute(now, None)
        with acting(COMMANDER) as task:
            self.org.world.events.save(command)
        self.org.world.caught_up(task.position)

    def sample(self) -> None:
        values = [EXAMPLES["latest"][name] for name in FIELDS]
        with psycopg.connect(self.org.world.database_url, autocommit=True) as connection:
            record_telemetry(connection, [Sample(self.plant_id, datetime.now(UTC), *values)])

    def measure(self) -> None:
        self.sample()
        now = datetime.now(UTC)
        # Both in one bucket of five minutes: the first reading of all counts no energy.
        minute = now.replace(minute=now.minute // 5 * 5, second=0, microsecond=0) - timedelta(minutes=4)
        register = [(minute, 1204.5), (minute + timedelta(minutes=1), 1205.75)]
        readings = [MeterReading(self.plant_id, "grid", time, energy) for time, energy in register]
        with psycopg.connect(self.org.world.database_url, autocommit=True) as connection:
            record_meters(connection, readings)


@pytest.fixture(scope="module")
def answers(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[dict[str, Any]]:
    with database(postgres_server, migrated_template) as url, served(url, PLENTY, streaming=SOON) as world:
        yield told(world)


def told(world: World) -> dict[str, Any]:
    world.esm.state = SandboxPlants(1)
    with acting(COMMANDER) as task:
        organisation = world.organisations.create("acme")
    world.caught_up(task.position)
    story = Story(Org(world, organisation.id, "acme"), plant_id=Plant.create_id(organisation.id, "esm-001"))
    story.tell("change_config")
    story.tell("audit", kind="trading-config:partner-changed")
    story.tell("enable", "sync", "change_plant_config", "config_log", "validate_plant_config", "plant_config")
    story.command()
    story.tell("command_log", "command")
    story.measure()
    story.tell("telemetry", "latest", "meters", "export_telemetry", "export_meters", "plants", "connection_details")
    story.follow("stream_telemetry", story.sample)
    # By now it is enabled and synced.
    story.tell("change_config", "enable", "config", "disable")
    return story.answers


@pytest.fixture(scope="module")
def same() -> Same:
    return Same()


@pytest.mark.parametrize("name", [endpoint.handler.__name__ for endpoint in ENDPOINTS])
def test_it_is_what_the_server_answered(answers: dict[str, Any], same: Same, name: str) -> None:
    same.check(EXAMPLES[name], answers[name])
