"""A process that is killed at any step of a sync or of a config change leaves a log that is true, and soon complete."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from application import plant_configs
from application.context import Metadata, acting
from application.plant_configs import PlantConfigChange
from application.trading import TradingConfigChange
from domain.errors import EsmUnreachable
from domain.plant import Plant
from domain.plant_config import PlantConfig
from infra.bootstrap import Parts
from infra.operator_keys import OperatorKey
from infra.sandbox.esm import CLIENT_ID, CLIENT_SECRET, SandboxEsm
from infra.sandbox.esm_plants import believable_plants
from infra.sandbox.faults import Fault
from interfaces.worker import WorkerParts
from interfaces.worker.jobs import Jobs
from projections.follower import Follower
from projections.read_models import READ_MODELS
from tests.examples import USER, block
from tests.worker.mortal_caller import (
    CHANGE_STEPS,
    FAILED_SYNC_STEPS,
    FINISH_STEPS,
    MISS_STEPS,
    SYNC_STEPS,
    caller,
    killed_at,
)

HIDDEN = "plant-config:created"


class Scene:
    """An organisation with a partner whose ESM outlives every process of ours; `parts` are those of the next one."""

    def __init__(self, parts: Parts, esm: SandboxEsm, keys: Sequence[OperatorKey]) -> None:
        self.parts, self.esm, self.keys = parts, esm, keys
        self.organization_id = parts.organisations.create("acme").id
        change = {"esmApiUrl": esm.url, "esmClientId": CLIENT_ID, "esmClientSecret": CLIENT_SECRET}
        parts.trading.change_config(self.organization_id, TradingConfigChange.model_validate(change))
        self.jobs = Jobs(
            WorkerParts(
                relay=parts.relay,
                publisher=parts.publisher,
                plants=parts.plants,
                plant_configs=parts.plant_configs,
                broker=parts.broker,
                connect=parts.connect,
                decode=parts.decode,
                due=parts.turns.due,
            )
        )

    def killed_at(self, step: str, use_case: str, *arguments: Any) -> None:
        killed_at(step, self.parts.where.database_url, self.keys, use_case, *arguments)
        self.catch_up()

    def sync(self) -> None:
        self.parts.plants.sync(self.organization_id)
        self.catch_up()

    def finish(self) -> None:
        """What the worker's timetable does every few seconds."""
        self.jobs.run("finish")
        self.catch_up()

    def catch_up(self) -> None:
        Follower("projector", READ_MODELS, self.parts.connect, self.parts.decode, announces=True).catch_up()

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.parts.connect() as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def told_of(self, stream_id: UUID) -> list[str]:
        rows = self.rows("SELECT topic FROM events WHERE stream_id = %s ORDER BY version", stream_id)
        return [topic.split(":")[1] for (topic,) in rows if topic != HIDDEN]

    def kinds(self) -> dict[str, int]:
        """How many plants have which history."""
        return dict(
            self.rows(
                "SELECT history, count(*) FROM (SELECT string_agg(split_part(topic, ':', 2), ' ' ORDER BY version)"
                " AS history FROM events WHERE topic LIKE 'plant:%%' GROUP BY stream_id) each GROUP BY history"
            )
        )

    def last_success(self) -> Any:
        return self.parts.turns.last_success(self.organization_id)


@pytest.fixture
def scene(request: pytest.FixtureRequest, database_url: str) -> Iterator[Scene]:
    keys = [OperatorKey.random()]
    with (
        SandboxEsm(believable_plants(request.param)) as esm,
        caller(database_url, keys) as parts,
        acting(Metadata(actor="test", source="cli")),
    ):
        scene = Scene(parts, esm, keys)
        yield scene
        scene.jobs.stop()


# --- sync
@pytest.mark.parametrize("scene", [110], indirect=True)
@pytest.mark.parametrize("step", SYNC_STEPS)
def test_a_sync_that_is_killed_is_completed_by_the_next(scene: Scene, step: str) -> None:
    scene.killed_at(step, "sync", scene.organization_id)
    whole = "created linked described"
    assert set(scene.kinds()) <= {whole}  # no plant is half told
    assert (scene.last_success() is not None) == (step == "after the turn is over")
    scene.sync()
    assert scene.kinds() == {whole: 110}
    config = scene.parts.trading.load(scene.organization_id)
    assert (config.last_sync, config.last_sync_error) == ((110, []), None)
    assert scene.rows("SELECT count(*) FROM events WHERE topic = 'trading-config:synced'") == [(1,)]
    assert scene.last_success() is not None
    before = scene.rows("SELECT max(position) FROM events")
    scene.sync()
    assert scene.rows("SELECT max(position) FROM events") == before


@pytest.mark.parametrize("scene", [2], indirect=True)
@pytest.mark.parametrize("step", MISS_STEPS)
def test_a_miss_counts_once_a_list_also_when_its_sync_is_killed(scene: Scene, step: str) -> None:
    scene.sync()
    scene.esm.plants.remove("esm-002")
    scene.killed_at(step, "sync", scene.organization_id)
    plant_id = Plant.create_id(scene.organization_id, "esm-002")
    recorded = scene.told_of(plant_id).count("missed")
    assert recorded == step.startswith("after")
    for _ in range(3 - recorded):
        assert scene.parts.events.load(Plant, plant_id).linked
        scene.sync()
    assert scene.told_of(plant_id) == ["created", "linked", "described", "missed", "missed", "missed", "unlinked"]


@pytest.mark.parametrize("scene", [2], indirect=True)
@pytest.mark.parametrize("step", FAILED_SYNC_STEPS)
def test_a_failed_sync_that_is_killed_leaves_no_lie(scene: Scene, step: str) -> None:
    scene.esm.faults.add(Fault(route="list", fault="403", times=2))
    scene.killed_at(step, "sync", scene.organization_id)
    with pytest.raises(EsmUnreachable):
        scene.sync()
    config = scene.parts.trading.load(scene.organization_id)
    assert config.last_sync_error is not None
    assert scene.rows("SELECT count(*) FROM events WHERE topic = 'trading-config:sync-failed'") == [(1,)]
    scene.sync()
    assert scene.parts.trading.load(scene.organization_id).last_sync_error is None


# --- changes of a plant's config
UNSENT = ("before the version is read", "after the version is read", "before plant-config:change-sent is committed")
MODES: dict[str, dict[str, Any]] = {
    "applied": {},
    "later": {"late_polls": 2},
    "refused": {"max_power_kw": 1.0},
    "dry run": {},
    "later dry run": {"late_polls": 2},
}


@pytest.mark.parametrize(
    ("scene", "modes"),
    [(16, ("applied", "later dry run")), pytest.param(24, ("later", "refused", "dry run"), marks=pytest.mark.bench)],
    indirect=["scene"],
)
def test_a_change_that_is_killed_comes_to_a_true_end(
    scene: Scene, modes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.sync()
    cases = [(step, mode) for step in CHANGE_STEPS for mode in modes]
    plants = dict(zip(cases, (plant.plant_id for plant in scene.esm.plants.all()), strict=True))
    for (step, mode), external_id in plants.items():
        scene.esm.plants.change(external_id, **MODES[mode])
        wanted = PlantConfigChange(time_configs=[block(pBatMax=7)], validate_only="dry" in mode)
        plant_id = Plant.create_id(scene.organization_id, external_id)
        scene.killed_at(step, "change", scene.organization_id, plant_id, wanted)
    # Another process begins anew: the one that sent can't be at it any more, later the hour is over.
    monkeypatch.setattr(plant_configs, "CALL_TIMEOUT", timedelta())
    for _ in range(3):
        scene.finish()
    for (step, mode), external_id in plants.items():
        if not terminal(scene, external_id):
            assert not applied(scene, external_id), (step, mode)
    monkeypatch.setattr(plant_configs, "ANSWER_TIMEOUT", timedelta())
    scene.finish()
    for (step, mode), external_id in plants.items():
        told = entries(scene, external_id)
        if step in UNSENT:
            assert told == [], (step, mode)
        else:
            ((is_terminal, is_error, validate_only, result),) = told
            assert is_terminal, (step, mode)
            says_applied = not is_error and not validate_only
            assert says_applied == applied(scene, external_id), (step, mode, result)
            assert not (applied(scene, external_id) and "dry" in mode)
        config_stream = PlantConfig.create_id(Plant.create_id(scene.organization_id, external_id))
        history = scene.told_of(config_stream)
        assert history.count("change-sent") == len(told)
        assert history[-1:] in ([], ["change-answered"]), (step, mode)
        # The next one is let in.
        scene.esm.plants.change(external_id, late_polls=0, max_power_kw=500.0)
        next_one = PlantConfigChange(time_configs=[block()], validate_only=True)
        change_of = scene.parts.plant_configs.change
        change_of(scene.organization_id, Plant.create_id(scene.organization_id, external_id), next_one, USER)


@pytest.mark.parametrize("scene", [len(FINISH_STEPS) * 2], indirect=True)
def test_a_later_answer_that_is_fetched_by_a_killed_process_is_fetched_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.sync()
    external_ids = iter(plant.plant_id for plant in scene.esm.plants.all())
    for step in FINISH_STEPS:
        for dry in (False, True):
            external_id = next(external_ids)
            scene.esm.plants.change(external_id, late_polls=1)
            plant_id = Plant.create_id(scene.organization_id, external_id)
            wanted = PlantConfigChange(time_configs=[block(pBatMax=7)], validate_only=dry)
            scene.parts.plant_configs.change(scene.organization_id, plant_id, wanted, USER)
            scene.killed_at(step, "finish", plant_id)
            scene.finish()
            scene.finish()
            ((is_terminal, is_error, _, result),) = entries(scene, external_id)
            assert (is_terminal, is_error, result) == (True, False, "VALID" if dry else "OK"), step
            assert applied(scene, external_id) == (not dry)
            stream = PlantConfig.create_id(plant_id)
            assert scene.told_of(stream) == ["change-sent", "change-answered", "change-answered"], step


def applied(scene: Scene, external_id: str) -> bool:
    """Whether the ESM has the plan, in a new version."""
    plant = scene.esm.plants.get(external_id)
    assert (plant.version == 2) == (plant.time_configs == (block(pBatMax=7),))
    return plant.version == 2


def entries(scene: Scene, external_id: str) -> list[tuple[Any, ...]]:
    return scene.rows(
        "SELECT is_terminal, is_error, validate_only, result_code FROM config_log WHERE plant_id = %s",
        Plant.create_id(scene.organization_id, external_id),
    )


def terminal(scene: Scene, external_id: str) -> bool:
    return all(entry[0] for entry in entries(scene, external_id))
