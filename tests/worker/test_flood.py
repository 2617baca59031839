"""What waits of one organisation delays neither another's command nor anybody's emergency."""

import statistics
import threading
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from application.ports import DeadLetter, Delivery, Message
from infra.sandbox.partner import SandboxPartner
from interfaces.worker.pace import Pace
from tests.worker import mortal
from tests.worker.site import PATIENCE_S, Site, json, setpoint, until


class Answers:
    """When each command was answered."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._changed = threading.Condition()

    def __call__(self, batch: Sequence[Delivery]) -> list[DeadLetter]:
        with self._changed:
            self.at |= dict.fromkeys((json(each)["payload"]["messageId"] for each in batch), time.monotonic())
            self._changed.notify_all()
        return []

    def wait_for(self, message_id: str) -> float:
        with self._changed:
            assert self._changed.wait_for(lambda: message_id in self.at, 20)
        return self.at[message_id]


def flood(site: Site, partner: SandboxPartner, count: int) -> None:
    """As many setpoints wait in the partner's queue, before anybody consumes it."""
    key = f"{partner.queue_prefix}.command.site-setpoint"
    for begin in range(0, count, 5000):
        bodies = [partner.body("esm-001", setpoint()) for _ in range(min(5000, count - begin))]
        assert all(site.outside.publish([Message("vcp", key, body) for body in bodies]))


def rank(site: Site, message_id: UUID) -> int:
    """How many commands were recorded before this one."""
    its = "SELECT created_at FROM command_log WHERE message_id = %s"
    query = f"SELECT count(*) FROM command_log WHERE created_at < ({its})"
    return int(site.rows(query, message_id)[0][0])


@pytest.fixture
def once_all_listen(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until it is set no command is recorded but emergencies: who connects first is chance, and not what is tried."""
    listening, pace = threading.Event(), Pace.__call__

    def wait(self: Pace) -> None:
        assert listening.wait(PATIENCE_S)
        pace(self)

    monkeypatch.setattr(Pace, "__call__", wait)
    return listening


def test_a_flooded_queue_is_overtaken_by_others_and_by_its_own_emergency(
    site: Site, once_all_listen: threading.Event
) -> None:
    acme = site.partner
    site.join("rival")
    flood(site, acme, 1500)
    other = site.partner.send("command.site-setpoint", "esm-001", setpoint())
    emergency = acme.send("command.emergency", "esm-001", {"action": "STOP"})
    worker = site.worker()
    until(lambda: all(worker.status().consumers.values()), "the consumers")
    once_all_listen.set()
    site.reaches(other, "ACCEPTED")
    site.reaches(emergency, "ACCEPTED")
    until(lambda: site.rows("SELECT count(*) FROM command_log") == [(1502,)], "all")
    assert rank(site, emergency) < 750
    assert rank(site, other) < 1000


@pytest.mark.bench
def test_fifty_thousand_setpoints_delay_others_by_no_more_than_a_second(rabbit_site: Site, amqp_url: str) -> None:
    site, acme = rabbit_site, rabbit_site.partner
    site.join("rival")
    rival = site.partner
    flood(site, acme, 50_000)
    to_acme, to_rival = Answers(), Answers()
    site.outside.consumer({"vcp.acme.event.status"}, to_acme)
    site.outside.consumer({"vcp.rival.event.status"}, to_rival)
    probes: dict[str, tuple[SandboxPartner, Answers, str, dict[str, Any]]] = {
        "another's setpoint": (rival, to_rival, "command.site-setpoint", setpoint()),
        "its own emergency": (acme, to_acme, "command.emergency", {"action": "STOP"}),
        "another's emergency": (rival, to_rival, "command.emergency", {"action": "STOP"}),
    }
    delays: dict[str, list[float]] = {kind: [] for kind in probes}
    worker = mortal.start(site.url, amqp_url, site.keys)
    try:
        begun = time.monotonic()
        until(lambda: to_acme.at, "work")
        while len(to_acme.at) < 50_000 and time.monotonic() - begun < 100:
            for kind, (partner, answers, key, payload) in probes.items():
                sent_at = time.monotonic()
                delays[kind].append(answers.wait_for(str(partner.send(key, "esm-001", payload))) - sent_at)
        took = time.monotonic() - begun
    finally:
        worker.kill()
        worker.join()
    for kind, seconds in delays.items():
        figures = f"n {len(seconds)}, median {statistics.median(seconds):.3f} s, most {max(seconds):.3f} s"
        print(f"\n{kind}: {figures}", end="")  # noqa: T201
    print(f"\n{len(to_acme.at)} answers in {took:.1f} s")  # noqa: T201
    assert all(max(seconds) <= 1 for seconds in delays.values())
