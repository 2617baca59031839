"""Whatever is done to the log, by whomever, and wherever a follower crashes: the read models are the log, folded."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from eventsourcing.persistence import IntegrityError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import astuple

from application.publisher import Recorded
from domain.plant import Plant, PlantDescription
from domain.relayed_command import RelayedCommand
from infra.embedded import EmbeddedPostgres
from projections.read_models import FOLDED, READ_MODELS
from projections.rebuild import rebuild
from tests.benchmarks.history import command
from tests.event_log.conftest import ORGANISATION, dying, log_at
from tests.servers import database

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = st.sampled_from(["north", "south"])


class LogAndFollower(RuleBasedStateMachine):
    """One log, a few aggregates, a follower that reads small pages and may crash in the middle of them."""

    server: EmbeddedPostgres
    template: str

    def __init__(self) -> None:
        super().__init__()
        self._database = database(self.server, self.template)
        self._log = log_at(self._database.__enter__(), size=4)
        self.log = self._log.__enter__()
        self.plants: list[UUID] = []
        self.commands: list[UUID] = []

    def teardown(self) -> None:
        self.follow()
        self._same_as_the_log_folded()
        rebuilt = rebuild(self.log.connect, self.log.decode, READ_MODELS)
        assert [each.difference for each in rebuilt] == [None] * len(READ_MODELS)
        self._same_as_the_log_folded()
        self._log.__exit__()
        self._database.__exit__(None, None, None)

    @rule()
    def register_plant(self) -> None:
        self.plants.append(self.log.plant().id)

    @rule()
    def receive_command(self) -> None:
        plant_id = self.plants[-1] if self.plants else ORGANISATION
        issued = command(random.Random(len(self.commands)), ORGANISATION, plant_id, len(self.commands))
        self.log.save(issued)
        self.commands.append(issued.id)

    @precondition(lambda self: self.commands)
    @rule(data=st.data(), step=st.sampled_from(["accept", "reject", "relay", "execute", "fail", "expire"]))
    def handle_command(self, data: st.DataObject, step: str) -> None:
        each = self.log.events.load(RelayedCommand, data.draw(st.sampled_from(self.commands)))
        arguments: dict[str, Sequence[Any]] = {
            "accept": [NOW],
            "reject": ["STALE_MESSAGE"],
            "relay": [],
            "execute": [NOW],
            "fail": [NOW, "no answer"],
            "expire": [NOW + timedelta(days=1)],
        }
        getattr(each, step)(*arguments[step])
        self.log.save(each)

    @precondition(lambda self: self.plants)
    @rule(data=st.data(), names=st.lists(NAMES, min_size=2, max_size=4))
    def writers_meet(self, data: st.DataObject, names: list[str]) -> None:
        """Some of them too late; what they stored is in the log, whole."""
        plant_id: UUID = data.draw(st.sampled_from(self.plants))

        def write(name: str) -> int:
            plant = self.log.events.load(Plant, plant_id)
            plant.miss(NOW)
            plant.link(PlantDescription(name))
            try:
                return len(plant.pending_events) if self.log.save(plant) else 0
            except IntegrityError:
                return 0

        with ThreadPoolExecutor(len(names)) as writers:
            list(writers.map(write, names))

    @rule()
    def follow(self) -> None:
        self.log.follower(page=3).catch_up()

    @rule(statements=st.integers(1, 30))
    def follow_and_crash(self, statements: int) -> None:
        follower = self.log.follower(page=3)
        follower._connect = lambda: dying(self.log, statements)
        with suppress(psycopg.OperationalError):
            follower.catch_up()

    @invariant()
    def positions_are_dense(self) -> None:
        [(count, last)] = self.log.execute("SELECT count(*), coalesce(max(position), 0) FROM events")
        assert count == last

    def _same_as_the_log_folded(self) -> None:
        stored = self.log.execute("SELECT position, topic, stream_id, version, state FROM events ORDER BY position")
        batch = [Recorded(row[0], self.log.decode(row[1])(*row[2:]), {}) for row in stored]
        for model in FOLDED:
            rows: dict[UUID, Any] = {}
            numbers: dict[Any, int] = {}
            for recorded in filter(lambda each: model.concerns(each.event), batch):
                key = model.key_of(recorded.event)
                before = rows.get(key)
                rows[key] = model.evolve(before, recorded.event, recorded.position)
                if before is None and model.is_numbered(rows[key]):
                    for column, group in model.numbering.items():
                        place = (column, *(getattr(rows[key], name) for name in group))
                        numbers[place] = numbers.get(place, 0) + 1
                        setattr(rows[key], column, numbers[place])
            columns = ", ".join(model.columns)
            expected = sorted(map(astuple, rows.values()), key=repr)
            assert sorted(self.log.execute(f"SELECT {columns} FROM {model.name}"), key=repr) == expected


def test_the_read_models_are_the_log_folded(postgres_server: EmbeddedPostgres, migrated_template: str) -> None:
    machine = type("Machine", (LogAndFollower,), {"server": postgres_server, "template": migrated_template})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
