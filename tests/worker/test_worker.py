"""The worker's own life: jobs, leadership, outages, and the state in which it leaves the broker."""

import threading
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from application.plant_configs import PlantConfigChange
from domain import topology
from infra import postgres
from interfaces.worker.leader import Leader
from interfaces.worker.reconciler import Reconciler
from tests.worker.site import Site, setpoint, until


def test_due_organisations_are_synced_and_a_failing_one_keeps_no_other_waiting(local: Site) -> None:
    local.join("rival")
    local.rows("UPDATE sync_turns SET next_at = now() RETURNING 1")
    local.esm.fail("plants", RuntimeError("a bug"))
    before = local.rows("SELECT count(*) FROM sync_turns WHERE next_at > now()")
    assert before == [(0,)]
    local.worker()
    until(lambda: local.rows("SELECT count(*) FROM sync_turns WHERE next_at > now()") == [(2,)], "both syncs")


def test_what_a_sync_records_was_done_by_the_scheduler(local: Site) -> None:
    local.worker()
    local.esm.state.remove("esm-002")
    local.rows("UPDATE sync_turns SET next_at = now() RETURNING 1")
    missed = "SELECT metadata->>'actor', metadata->>'source' FROM events WHERE topic = 'plant:missed'"
    assert until(lambda: local.rows(missed), "the miss") == [("scheduler", "scheduler")]


def test_a_change_that_is_answered_later_is_finished(local: Site) -> None:
    local.worker()
    local.esm.state.change("esm-001", late_polls=2)
    with local.acting():
        change = PlantConfigChange(time_configs=list(local.esm.state.get("esm-001").time_configs))
        local.plant_configs.change(local.organization_id, local.plant_id, change, uuid4())
    until(lambda: local.rows("SELECT is_terminal, is_error FROM config_log") == [(True, False)], "the end")


def test_partitions_are_made_ahead(local: Site) -> None:
    local.worker()
    ahead = "SELECT count(*) FROM pg_class WHERE relname ~ '^telemetry_[0-9]{8}$'"
    until(lambda: local.rows(ahead)[0][0] >= 8, "a week's partitions")


def test_queues_that_are_missing_are_declared_and_orphans_deleted_at_second_sight(site: Site) -> None:
    site.worker()
    reconciler = Reconciler(site.broker)
    with site.pool.connection() as connection:
        until(lambda: site.rows("SELECT 1 FROM trading_configs WHERE status = 'ENABLED'"), "the read model")
        until(lambda: reconciler.reconcile(connection) == [], "order")
        site.broker.delete(["vcp.acme.command", "vcp.ingest"])
        assert sorted(reconciler.reconcile(connection)) == ["vcp.acme.command", "vcp.ingest"]
        with site.acting():
            site.trading.disable(site.organization_id)
        until(lambda: site.rows("SELECT 1 FROM trading_configs WHERE status = 'DISABLED'"), "the read model")
        site.broker.declare(topology.of_prefix("acme"))
        assert reconciler.reconcile(connection) == []
        assert sorted(reconciler.reconcile(connection)) == sorted(queue.name for queue in topology.queues("acme"))
        assert not site.broker.queue_exists("vcp.acme.event.alarm")


def test_one_leads_until_its_connection_ends(local: Site) -> None:
    connect = partial(postgres.connect, local.url, "leader")
    first, second = Leader(connect), Leader(connect)
    leading = first.connection()
    assert leading is not None
    assert first.connection() is leading
    assert second.connection() is None
    local.rows("SELECT pg_terminate_backend(%s)", leading.info.backend_pid)
    assert until(second.connection, "the take-over")
    with pytest.raises(psycopg.OperationalError):
        first.connection()
    assert first.connection() is None
    second.resign()
    assert first.connection() is not None
    first.resign()


def test_it_starts_without_a_database_and_goes_on_when_there_is_one(local: Site) -> None:
    up, refused = threading.Event(), threading.Event()

    def connect() -> Any:
        if not up.is_set():
            refused.set()
            raise psycopg.OperationalError("no server")
        return postgres.connect(local.url, "worker")

    worker = local.worker(wait=False, connect=connect)
    assert refused.wait(60)
    local.send_raw("acme.event.telemetry.realtime.esm-001", b"unreadable")
    assert worker.status().followers == {"projector": False, "publisher": False}
    up.set()
    assert set(local.dead(1)) == {b"unreadable"}
    until(lambda: all(worker.status().followers.values()), "the followers")
    assert worker.status().consumers == {"emergencies": True, "commands": True, "plant-acks": True, "ingest": True}
    message_id = local.partner.send("command.site-setpoint", "esm-001", setpoint())
    local.reaches(message_id, "ACCEPTED")


def test_lost_connections_lose_nothing(site: Site) -> None:
    site.worker()
    gateway = site.gateway()
    sent = []
    for number in range(30):
        sent.append(site.partner.send("command.site-setpoint", "esm-001", setpoint()))
        if number == 15:
            site.rows(
                # And waits for their end, so that our own pool can see which it has lost.
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            site.pool.check()
    for message_id in sent:
        site.reaches(message_id, "RELAYED")
    assert {told.message_id for told in gateway.received} == {
        str(row[0]) for row in site.rows("SELECT id FROM command_log")
    }


def test_it_stops_within_seconds_and_leaves_the_rest_in_the_queue(site: Site) -> None:
    worker = site.worker()
    worker.stop()
    assert not any(worker.status().followers.values())
    message_id = site.partner.send("command.site-setpoint", "esm-001", setpoint())
    assert site.rows("SELECT 1 FROM command_log") == []
    site.worker()
    site.reaches(message_id, "ACCEPTED")
