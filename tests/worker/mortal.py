"""A worker in a process of its own that kills itself, by SIGKILL, at a chosen step of a command's life."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial, wraps
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any
from unittest.mock import Mock

from application.publisher import Publisher
from application.relay import Relay
from infra import postgres, rabbitmq_publisher
from infra.event_mapper import EventMapper
from infra.event_store import EventRecorder, event_log
from infra.rabbitmq import RabbitBroker
from infra.rabbitmq_session import Session
from infra.secret_box import OperatorKey, PostgresSecretBox
from interfaces.amqp import Commands, PlantAcks
from interfaces.worker import Intervals, Worker, WorkerParts
from projections.follower import Follower

INTERVALS = Intervals(watch=0.05, sync=60, finish=60, expire=0.1, relay_again=0.1, reconcile=60, partitions=3600)


def start(database_url: str, amqp_url: str, keys: Sequence[OperatorKey], step: str | None = None) -> BaseProcess:
    """It lives until that step, without one until it is killed."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_work, args=(database_url, amqp_url, keys, step), daemon=True)
    process.start()
    return process


def _work(database_url: str, amqp_url: str, keys: list[OperatorKey], step: str | None) -> None:
    if step is not None:
        STEPS[step]()
    pool = postgres.pool(database_url, 10, "mortal")
    pool.open()
    events = event_log(pool)
    broker = RabbitBroker(amqp_url)
    # Nothing is due and no change is open, so neither is ever called.
    uncalled: dict[str, Any] = {"plants": Mock(), "plant_configs": Mock()}
    worker = Worker(
        WorkerParts(
            relay=Relay(events, PostgresSecretBox(pool, keys)),
            publisher=Publisher(events, broker),
            broker=broker,
            connect=partial(postgres.connect, database_url, "mortal"),
            decode=EventMapper().decoder,
            due=list,
            intervals=INTERVALS,
            **uncalled,
        )
    )
    worker.start()
    threading.Event().wait()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
    _wrap(owner, name, when, before=True)


def _after(owner: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
    _wrap(owner, name, when, before=False)


def _wrap(owner: Any, name: str, when: Callable[..., bool], *, before: bool) -> None:
    original = getattr(owner, name)

    @wraps(original)
    def mortal(*arguments: Any, **options: Any) -> Any:
        dies = when(*arguments, **options)
        if dies and before:
            _die()
        result = original(*arguments, **options)
        if dies:
            _die()
        return result

    setattr(owner, name, mortal)


def _saves(topic: str) -> Callable[..., bool]:
    def does(_: Any, stored_events: Any, **__: Any) -> bool:
        return any(event.topic == f"relayed-command:{topic}" for event in stored_events)

    return does


def _sends(part: str) -> Callable[..., bool]:
    return lambda _, messages: any(part in message.routing_key for message in messages)


def _of_publisher(_: Any, __: Any, healthy: Sequence[str], *___: Any) -> bool:
    return "publisher" in healthy


def _of_consumer(name: str) -> Callable[..., bool]:
    return lambda session, _: session.name == name


def _takes(intake: str) -> Callable[..., bool]:
    return lambda commands, _: commands.intake == intake


def _save_steps(topic: str) -> dict[str, Callable[[], None]]:
    return {
        f"before {topic} is committed": partial(_before, EventRecorder, "insert_events", _saves(topic)),
        f"after {topic} is committed": partial(_after, EventRecorder, "insert_events", _saves(topic)),
    }


STEPS: dict[str, Callable[[], None]] = {
    "a command is delivered": partial(_before, Commands, "__call__", _takes("commands")),
    "an emergency is delivered": partial(_before, Commands, "__call__", _takes("emergencies")),
    **_save_steps("accepted"),
    **_save_steps("overtook"),
    "after commands are acked": partial(_after, Session, "ack", _of_consumer("commands")),
    "before its ACK is published": partial(_before, RabbitBroker, "publish", _sends("event.command.ack")),
    "before a confirm is seen": partial(_before, rabbitmq_publisher._Session, "_on_confirm"),
    "after all confirms are seen": partial(_after, RabbitBroker, "publish", _sends("plant.")),
    **_save_steps("relayed"),
    "before the publisher's position moves": partial(_before, Follower, "_move", _of_publisher),
    "after the publisher's position moved, uncommitted": partial(_after, Follower, "_move", _of_publisher),
    "a plant's answer is delivered": partial(_before, PlantAcks, "__call__"),
    **_save_steps("executed"),
    "after a plant's answer is acked": partial(_after, Session, "ack", _of_consumer("plant-acks")),
    "before its execution is published": partial(_before, RabbitBroker, "publish", _sends("event.execution")),
    "after its execution is published": partial(_after, RabbitBroker, "publish", _sends("event.execution")),
    **_save_steps("expired"),
}
