"""The Broker port's contract for topology and consuming, kept by the broker in memory and by RabbitMQ alike."""

import threading
import time
from collections.abc import Sequence

import pytest

from application.ports import Broker, DeadLetter, Delivery, Message
from domain import topology
from domain.topology import DEAD_QUEUE, INGEST_QUEUE, Binding, Queue, Topology
from infra import rabbitmq_session
from tests.broker.inbox import Inbox, command, numbered

COMMANDS = "vcp.acme.command"
SCHEDULES = "vcp.acme.schedule"
ALL_ACME = {queue.name for queue in topology.queues("acme")}


def test_declaring_twice_keeps_what_is_in_the_queues(broker: Broker) -> None:
    broker.publish(numbered(3))
    broker.declare(topology.of_prefix("acme"))
    inbox = Inbox()
    broker.consumer({COMMANDS}, inbox)
    assert len(inbox.wait_for(3)) == 3


def test_deleting_removes_exactly_these_names_and_may_be_repeated(broker: Broker) -> None:
    broker.declare(topology.of_prefix("acme2"))
    broker.delete(sorted(ALL_ACME))
    broker.delete(sorted(ALL_ACME))
    assert not any(broker.queue_exists(queue) for queue in ALL_ACME)
    assert broker.queue_exists("vcp.acme2.command")
    assert broker.queue_exists(DEAD_QUEUE)


def test_a_queue_that_does_not_exist_is_told_so_and_disturbs_no_later_call(broker: Broker) -> None:
    assert not broker.queue_exists("vcp.nobody.command")
    assert broker.queue_exists(COMMANDS)
    assert broker.publish([command()]) == [True]


def test_what_waits_is_counted(broker: Broker) -> None:
    broker.publish(numbered(3))
    asked = [SCHEDULES, "vcp.nobody.command", COMMANDS]
    deadline = time.monotonic() + 10
    # A quorum queue counts a moment late.
    while (counted := broker.waiting(asked)) != {COMMANDS: 3, SCHEDULES: 0}:
        assert time.monotonic() < deadline, counted
    assert broker.waiting([]) == {}


def test_a_queue_with_other_bounds_is_kept_with_its_messages_and_gets_its_new_binding(broker: Broker) -> None:
    broker.publish(numbered(2))
    changed = Queue(COMMANDS, (Binding("vcp", "acme.extra"),), max_length=1)
    after = Queue("vcp.after", (Binding("vcp", "after"),))
    broker.declare(Topology((changed, after)))
    assert broker.publish([Message("vcp", "acme.extra", b"2"), Message("vcp", "after", b"")]) == [True, True]
    inbox = Inbox()
    broker.consumer({COMMANDS}, inbox)
    inbox.wait_for(3)
    assert inbox.bodies == [b"0", b"1", b"2"]


def test_a_bounded_queue_drops_its_oldest(broker: Broker) -> None:
    broker.declare(Topology((Queue("vcp.short", (Binding("vcp", "short"),), max_length=2),)))
    broker.publish([Message("vcp", "short", b"%d" % number) for number in range(5)])
    inbox = Inbox()
    broker.consumer({"vcp.short"}, inbox)
    inbox.wait_for(2)
    assert inbox.bodies == [b"3", b"4"]


def test_a_delivery_says_all_that_was_sent(broker: Broker) -> None:
    broker.publish([Message("vcp", "acme.command.mode", b"{}", "m-1", {"kind": "x", "n": 7})])
    inbox = Inbox()
    broker.consumer({COMMANDS}, inbox)
    expected = Delivery(COMMANDS, "vcp", "acme.command.mode", b"{}", "m-1", {"kind": "x", "n": 7}, redelivered=False)
    assert inbox.wait_for(1) == [expected]


def test_batches_come_in_order_and_no_larger_than_asked(broker: Broker) -> None:
    broker.publish(numbered(500))
    inbox = Inbox()
    broker.consumer({COMMANDS}, inbox, batch=50)
    inbox.wait_for(500)
    assert inbox.bodies == [b"%d" % number for number in range(500)]
    assert max(map(len, inbox.batches)) == 50


def test_a_batch_that_is_not_full_comes_after_its_linger(broker: Broker) -> None:
    inbox = Inbox()
    broker.consumer({COMMANDS}, inbox, batch=1000, linger=0.02)
    broker.publish(numbered(3))
    assert len(inbox.wait_for(3)) == 3


def test_each_delivery_names_its_queue(broker: Broker) -> None:
    inbox = Inbox()
    broker.consumer({COMMANDS, SCHEDULES, INGEST_QUEUE}, inbox)
    keys = ["command.device", "schedule.create", "event.telemetry.realtime.1"]
    broker.publish([Message("vcp", f"acme.{key}", b"") for key in keys for _ in range(20)])
    queues = {delivery.routing_key: delivery.queue for delivery in inbox.wait_for(60)}
    assert queues == dict(zip([f"acme.{key}" for key in keys], [COMMANDS, SCHEDULES, INGEST_QUEUE], strict=True))


def test_what_was_handled_is_acked(broker: Broker) -> None:
    broker.publish(numbered(100))
    first, second = Inbox(), Inbox()
    consumption = broker.consumer({COMMANDS}, first, batch=30)
    first.wait_for(100)
    consumption.stop()
    assert not consumption.connected
    broker.publish([command(100)])
    broker.consumer({COMMANDS}, second)
    second.wait_for(1)
    assert second.bodies == [b"100"]


def test_a_batch_that_failed_comes_again_in_order(broker: Broker) -> None:
    inbox = Inbox(failures=2)
    broker.publish(numbered(20))
    broker.consumer({COMMANDS}, inbox, batch=10)
    inbox.wait_for(20)
    assert inbox.bodies == [b"%d" % number for number in range(20)]
    assert [delivery.redelivered for delivery in inbox.received[:10]] == [True] * 10
    assert inbox.failed[0].body == inbox.failed[-10].body == b"0"


def test_dead_letters_move_with_their_story(broker: Broker) -> None:
    def handle(batch: Sequence[Delivery]) -> Sequence[DeadLetter]:
        return [DeadLetter(delivery, "no JSON", "req-1") for delivery in batch if delivery.body == b"1"]

    consumption = broker.consumer({COMMANDS}, handle)
    dead, rest = Inbox(), Inbox()
    broker.consumer({DEAD_QUEUE}, dead)
    broker.publish(numbered(3))
    [letter] = dead.wait_for(1)
    assert (letter.body, letter.message_id, letter.exchange) == (b"1", "m-1", "")
    assert letter.headers == {
        "reason": "no JSON",
        "request-id": "req-1",
        "original-exchange": "vcp",
        "original-routing-key": "acme.command.device",
        "original-queue": COMMANDS,
    }
    consumption.stop()
    broker.publish([command(3)])
    broker.consumer({COMMANDS}, rest)
    rest.wait_for(1)
    assert rest.bodies == [b"3"]


def test_a_dead_letter_is_not_lost_while_its_queue_is_missing(broker: Broker) -> None:
    broker.delete([DEAD_QUEUE])
    tried = threading.Event()

    def handle(batch: Sequence[Delivery]) -> Sequence[DeadLetter]:
        if any(delivery.redelivered for delivery in batch):
            tried.set()
        return [DeadLetter(delivery, "no JSON", "req-1") for delivery in batch]

    broker.consumer({COMMANDS}, handle)
    broker.publish([command(7)])
    assert tried.wait(60)
    broker.declare(topology.shared())
    dead = Inbox()
    broker.consumer({DEAD_QUEUE}, dead)
    assert dead.wait_for(1)[0].body == b"7"


def test_the_set_of_queues_may_change_at_any_time(broker: Broker) -> None:
    inbox = Inbox()
    consumption = broker.consumer({COMMANDS}, inbox)
    broker.publish([command(1), Message("vcp", "acme.schedule.create", b"2")])
    inbox.wait_for(1)
    consumption.consume({SCHEDULES})
    inbox.wait_for(2)
    assert inbox.bodies == [b"1", b"2"]
    consumption.consume({COMMANDS, SCHEDULES})
    broker.publish([command(3)])
    inbox.wait_for(3)
    consumption.consume(set())
    consumption.consume({COMMANDS})
    broker.publish([command(4)])
    inbox.wait_for(4)
    assert inbox.bodies == [b"1", b"2", b"3", b"4"]


def test_a_change_of_queues_while_a_batch_is_in_hand_loses_and_doubles_nothing(broker: Broker) -> None:
    inbox, other = Inbox(), Inbox()
    inbox.gate.clear()
    broker.publish(numbered(100))
    consumption = broker.consumer({COMMANDS}, inbox, batch=10)
    assert inbox.entered.wait(60)
    for _ in range(5):
        consumption.consume({SCHEDULES})
        consumption.consume({COMMANDS, SCHEDULES})
    inbox.gate.set()
    inbox.wait_for(100)
    consumption.stop()
    broker.publish([command(100)])
    broker.consumer({COMMANDS}, other)
    other.wait_for(1)
    assert sorted(int(body) for body in inbox.bodies + other.bodies) == list(range(101))


def test_a_queue_that_does_not_exist_yet_stops_no_other(broker: Broker) -> None:
    inbox = Inbox()
    broker.consumer({"vcp.late.command", COMMANDS}, inbox)
    broker.publish([command(1)])
    inbox.wait_for(1)
    broker.declare(topology.of_prefix("late"))
    broker.publish([command(2, "late")])
    inbox.wait_for(2)
    assert [delivery.queue for delivery in inbox.received] == [COMMANDS, "vcp.late.command"]


def test_a_queue_deleted_under_its_consumer_is_consumed_again_once_it_is_back(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_session, "_QUIET_SECONDS", 1)
    inbox = Inbox()
    broker.consumer({COMMANDS, SCHEDULES}, inbox)
    broker.publish([command(1)])
    inbox.wait_for(1)
    broker.delete([COMMANDS])
    broker.publish([Message("vcp", "acme.schedule.create", b"2")])
    inbox.wait_for(2)
    broker.declare(topology.of_prefix("acme"))
    broker.publish([command(3)])
    inbox.wait_for(3)
    assert inbox.bodies == [b"1", b"2", b"3"]


def test_two_consumers_share_a_queue(broker: Broker) -> None:
    inbox = Inbox()
    broker.consumer({COMMANDS}, inbox, batch=10, name="one")
    broker.consumer({COMMANDS}, inbox, batch=10, name="two")
    broker.publish(numbered(300))
    inbox.wait_for(300)
    assert sorted(int(body) for body in inbox.bodies) == list(range(300))


def test_stop_waits_for_the_batch_in_hand_and_leaves_the_rest(broker: Broker) -> None:
    inbox, rest = Inbox(), Inbox()
    inbox.gate.clear()
    broker.publish(numbered(30))
    consumption = broker.consumer({COMMANDS}, inbox, batch=10)
    assert inbox.entered.wait(60)
    stopping = threading.Thread(target=consumption.stop)
    stopping.start()
    inbox.gate.set()
    stopping.join(60)
    assert not stopping.is_alive()
    handled = len(inbox.received)
    assert handled % 10 == 0
    broker.consumer({COMMANDS}, rest)
    rest.wait_for(30 - handled)
    assert inbox.bodies + rest.bodies == [b"%d" % number for number in range(30)]


def test_a_handle_may_stop_its_own_consumer(broker: Broker) -> None:
    stopped = threading.Event()

    def handle(batch: Sequence[Delivery]) -> Sequence[DeadLetter]:
        consumption.stop()
        stopped.set()
        return ()

    consumption = broker.consumer(set(), handle)
    consumption.consume({COMMANDS})
    broker.publish([command()])
    assert stopped.wait(60)
