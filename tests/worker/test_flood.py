"""What waits of one organisation delays neither another's command nor anybody's emergency."""

import statistics
import threading
import time
from collections.abc import Callable
from uuid import UUID

import pytest

from application.ports import Message
from infra.sandbox.partner import SandboxPartner
from tests.worker.site import Site, json, setpoint, until

CREATED = "SELECT position FROM events WHERE topic = 'relayed-command:created'"


def flood(site: Site, partner: SandboxPartner, count: int) -> None:
    """As many setpoints wait in the partner's queue, before anybody consumes it."""
    key = f"{partner.queue_prefix}.command.site-setpoint"
    for begin in range(0, count, 5000):
        bodies = [partner.body("esm-001", setpoint()) for _ in range(min(5000, count - begin))]
        assert all(site.outside.publish([Message("vcp", key, body) for body in bodies]))


def rank(site: Site, message_id: UUID) -> int:
    """How many commands were recorded before this one."""
    query = "SELECT count(*) FROM command_log WHERE created_at < (SELECT created_at FROM command_log WHERE message_id = %s)"
    return int(site.rows(query, message_id)[0][0])


def test_a_flooded_queue_is_overtaken_by_others_and_by_its_own_emergency(site: Site) -> None:
    acme = site.partner
    site.join("rival")
    flood(site, acme, 1500)
    other = site.partner.send("command.site-setpoint", "esm-001", setpoint())
    emergency = acme.send("command.emergency", "esm-001", {"action": "STOP"})
    # Where there is no own connection for emergencies, it would be the 1500th.
    site.worker()
    site.reaches(other, "ACCEPTED")
    site.reaches(emergency, "ACCEPTED")
    until(lambda: site.rows("SELECT count(*) FROM command_log") == [(1502,)], "all")
    assert rank(site, emergency) < 750
    assert rank(site, other) < 1000


@pytest.mark.bench
def test_fifty_thousand_setpoints_delay_others_by_no_more_than_a_second(site: Site) -> None:
    acme = site.partner
    site.join("rival")
    rival = site.partner
    flood(site, acme, 50_000)
    gateway = site.gateway()
    acme_status, rival_status = site.inbox("vcp.acme.event.status"), site.inbox("vcp.rival.event.status")
    begun = time.monotonic()
    site.worker()
    delays: dict[str, list[float]] = {"another's": [], "its own emergency": [], "another's emergency": []}
    while len(gateway.received) < 45_000 and time.monotonic() - begun < 120:
        for kind, status, send in (
            ("another's", rival_status, lambda: rival.send("command.site-setpoint", "esm-001", setpoint())),
            ("its own emergency", acme_status, lambda: acme.send("command.emergency", "esm-001", {"action": "STOP"})),
            ("another's emergency", rival_status, lambda: rival.send("command.emergency", "esm-001", {"action": "STOP"})),
        ):
            sent_at = time.monotonic()
            message_id = str(send())
            until(lambda: any(json(each)["payload"]["messageId"] == message_id for each in status.received[-3000:]), kind)
            delays[kind].append(time.monotonic() - sent_at)
        threading.Event().wait(0.2)
    took = time.monotonic() - begun
    for kind, seconds in delays.items():
        print(f"\n{kind}: n {len(seconds)}, median {statistics.median(seconds):.3f} s, most {max(seconds):.3f} s", end="")
    print(f"\n{len(gateway.received)} commands told in {took:.1f} s")
    assert all(max(seconds) <= 1 for seconds in delays.values())
