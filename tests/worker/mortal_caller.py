"""A process that calls the ESM, and kills itself by SIGKILL at a chosen step of a sync or of a config change."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any
from uuid import UUID

from application.context import Metadata, acting
from application.plant_configs import PlantConfigChange
from infra.bootstrap import Parts, Where, assembled
from infra.esm import Esm
from infra.event_store import EventRecorder
from infra.local_broker import LocalBroker
from infra.operator_keys import OperatorKey
from infra.settings import Settings
from infra.sync_turns import PostgresSyncTurns
from tests.examples import USER
from tests.worker.mortal import _after, _before

Steps = dict[str, Callable[[], None]]
SIGKILLED = -9


@contextmanager
def caller(database_url: str, keys: Sequence[OperatorKey]) -> Iterator[Parts]:
    """The parts of a process, as the command line puts them together, but for the broker."""
    where = Where(database_url, None, list(keys), ["127.0.0.0/8"])
    with assembled(where, Settings(), LocalBroker()) as parts:
        yield parts


def killed_at(step: str, database_url: str, keys: Sequence[OperatorKey], use_case: str, *arguments: Any) -> None:
    """Runs `sync`, `change` or `finish` in a process of its own, and sees it killed at that step."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_call, args=(step, database_url, keys, use_case, arguments), daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode == SIGKILLED, f"{use_case} never came to the step: {step}"


def sync(parts: Parts, organization_id: UUID) -> None:
    parts.plants.sync(organization_id)


def change(parts: Parts, organization_id: UUID, plant_id: UUID, change: PlantConfigChange) -> None:
    parts.plant_configs.change(organization_id, plant_id, change, USER)


def finish(parts: Parts, plant_id: UUID) -> None:
    parts.plant_configs.finish(plant_id)


def _call(step: str, database_url: str, keys: list[OperatorKey], use_case: str, arguments: tuple[Any, ...]) -> None:
    with caller(database_url, keys) as parts, acting(Metadata(actor="mortal", source="cli")):
        ALL_STEPS[step]()
        globals()[use_case](parts, *arguments)


def _around(owner: Any, name: str, what: str) -> Steps:
    return {f"before {what}": partial(_before, owner, name), f"after {what}": partial(_after, owner, name)}


def _around_save(topic: str, nth: int = 1) -> Steps:
    """Around the nth save with an event of this kind."""

    def when() -> Callable[..., bool]:
        seen = 0

        def is_it(_: Any, stored: Any, **__: Any) -> bool:
            nonlocal seen
            seen += any(each.topic == topic for each in stored)
            return seen == nth and any(each.topic == topic for each in stored)

        return is_it

    name = f"{topic} is committed" + (f", the {nth}nd time" if nth > 1 else "")
    return {
        f"before {name}": lambda: _before(EventRecorder, "insert_events", when()),
        f"after {name}": lambda: _after(EventRecorder, "insert_events", when()),
    }


_SENT = _around_save("plant-config:change-sent")
_ANSWERED = _around_save("plant-config:change-answered")

SYNC_STEPS: Steps = {
    **_around(Esm, "plants", "the list is fetched"),
    **_around_save("plant:created"),
    **_around_save("plant:created", 2),
    **_around_save("trading-config:synced"),
    **_around(PostgresSyncTurns, "succeeded", "the turn is over"),
}
MISS_STEPS: Steps = _around_save("plant:missed")
FAILED_SYNC_STEPS: Steps = {
    **_around_save("trading-config:sync-failed"),
    **_around(PostgresSyncTurns, "failed", "the turn has failed"),
}
CHANGE_STEPS: Steps = {
    **_around(Esm, "plant_config", "the version is read"),
    **_SENT,
    **_around(Esm, "update_config", "the update is answered"),
    **_ANSWERED,
}
FINISH_STEPS: Steps = {**_around(Esm, "request_status", "the later answer"), **_ANSWERED}
ALL_STEPS: Steps = {**SYNC_STEPS, **MISS_STEPS, **FAILED_SYNC_STEPS, **CHANGE_STEPS, **FINISH_STEPS}
