"""A worker that is killed at any step of a command's life loses no command and doubles none."""

import signal
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest

from application.ports import DeadLetter, Delivery
from domain.topology import Binding, Queue, Topology
from tests.broker.inbox import Inbox
from tests.worker import mortal
from tests.worker.mortal import STEPS
from tests.worker.site import Site, json, setpoint, until


class Plant:
    """Answers whatever it is told, also what it is told again; what it does, it does once by command."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.told: Counter[str] = Counter()
        queue = Queue("test.plant", (Binding("plant", f"plant.{site.plant_id}.command"),))
        site.outside.declare(Topology((queue,)))
        site.outside.consumer({queue.name}, self)

    def __call__(self, batch: Sequence[Delivery]) -> list[DeadLetter]:
        for told in batch:
            self.told[json(told)["commandId"]] += 1
            self.site.answer(told, "RECEIVED")
            self.site.answer(told, "EXECUTED")
        return []


def send(site: Site, step: str, soon_s: float) -> dict[UUID, str]:
    """Some of each kind, and how each must end: the plant esm-002 never listens."""
    if "expired" in step:
        soon = (datetime.now(UTC) + timedelta(seconds=soon_s)).isoformat()
        return {site.partner.send("command.site-setpoint", "esm-002", setpoint(validUntil=soon)): "EXPIRED"}
    ends = {site.partner.send("command.site-setpoint", "esm-001", setpoint()): "EXECUTED" for _ in range(3)}
    return ends | {
        site.partner.send("command.emergency", "esm-001", {"action": "STOP"}): "EXECUTED",
        site.partner.send("command.site-setpoint", "esm-404", setpoint()): "REJECTED",
    }


def kill_at(site: Site, amqp_url: str, step: str) -> dict[UUID, str]:
    """Sends, and sees a worker killed at that step. What a busy machine takes too late is rejected, and sent again."""
    late: dict[UUID, str] = {}
    for soon_s in (2, 10, 50):
        ends = send(site, step, soon_s)
        mortal_one = mortal.start(site.url, amqp_url, site.keys, step)
        until(lambda: not mortal_one.is_alive() or _too_late(site, ends), f"the step: {step}")  # noqa: B023 - called here
        mortal_one.kill()
        mortal_one.join()
        assert mortal_one.exitcode == -signal.SIGKILL
        if not _too_late(site, ends):
            return ends | late
        late |= dict.fromkeys(ends, "REJECTED")
    raise AssertionError(f"never came to the step: {step}")


def _too_late(site: Site, ends: dict[UUID, str]) -> bool:
    return any(site.status(message_id) == "REJECTED" for message_id, end in ends.items() if end == "EXPIRED")


@pytest.fixture(scope="module")
def log() -> str:
    """Of each command what is recorded, in order; a repeat of an acknowledgement is no effect."""
    return (
        "SELECT array_agg(split_part(topic, ':', 2) ORDER BY version) FROM events WHERE stream_id ="
        " (SELECT id FROM command_log WHERE message_id = %s)"
        " AND topic NOT IN ('relayed-command:repeated', 'relayed-command:overtook')"
    )


def test_every_step_of_a_commands_life(rabbit_site: Site, amqp_url: str, log: str) -> None:
    site, plant = rabbit_site, Plant(rabbit_site)
    status, execution = site.inbox("vcp.acme.event.status"), site.inbox("vcp.acme.event.execution")
    all_ends: dict[UUID, str] = {}
    for step in STEPS:
        ends = kill_at(site, amqp_url, step)
        again = mortal.start(site.url, amqp_url, site.keys)
        try:
            for message_id, end in ends.items():
                until(partial(has_come_to, site, message_id, end), f"{step}: {end}")
            ended = {message_id for message_id, end in ends.items() if end != "REJECTED"}
            until(partial(has_told, execution, ended), step)
            until(partial(has_told, status, set(ends)), step)
        finally:
            again.kill()
            again.join()
        all_ends |= ends
    records = {
        "EXECUTED": (["created", "accepted", "relayed", "executed"], ["created", "accepted", "executed"]),
        "EXPIRED": (["created", "accepted", "expired"],),
        "REJECTED": (["created", "rejected"],),
    }
    for message_id, end in all_ends.items():
        assert site.rows(log, message_id)[0][0] in records[end], end
    executed = {str(row[0]) for row in site.rows("SELECT id FROM command_log WHERE status = 'EXECUTED'")}
    assert set(plant.told) == executed
    assert len(executed) == list(all_ends.values()).count("EXECUTED")
    # To the partner: one answer and one end each, or the very same again.
    for inbox in (status.received, execution.received):
        assert len({each.message_id for each in inbox}) == len(told_of(inbox))
    assert told_of(status.received) == set(all_ends)


def has_come_to(site: Site, message_id: UUID, status: str) -> bool:
    return site.status(message_id) == status


def has_told(inbox: Inbox, message_ids: set[UUID]) -> bool:
    return told_of(inbox.received) >= message_ids


def told_of(deliveries: Sequence[Delivery]) -> set[UUID]:
    return {UUID(json(each)["payload"]["messageId"]) for each in deliveries}
