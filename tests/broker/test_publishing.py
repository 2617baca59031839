"""The Broker port's contract for publishing, kept by the broker in memory and by RabbitMQ alike."""

from concurrent.futures import ThreadPoolExecutor

from application.ports import Broker, Message
from domain.topology import Binding, Queue, Topology
from tests.broker.inbox import Inbox, command, numbered

COMMANDS = "vcp.acme.command"
SCHEDULES = "vcp.acme.schedule"

TOPICS = [
    ("a.b", "a.b", True),
    ("a.b", "a.bc", False),
    ("a.*", "a.b", True),
    ("a.*", "a", False),
    ("a.*", "a.b.c", False),
    ("*.b", "a.b", True),
    ("a.#", "a", True),
    ("a.#", "a.b.c", True),
    ("a.#", "ab.c", False),
    ("#", "", True),
    ("#", "a.b", True),
    ("*", "", False),
    ("a.#.z", "a.z", True),
    ("a.#.z", "a.b.c.z", True),
    ("a.#.z", "a.b.c", False),
    ("#.*", "a", True),
    ("*.#.*", "a", False),
]


def test_topics(broker: Broker) -> None:
    queues = [Queue(f"vcp.topic-{n}", (Binding(f"x{n}", pattern),)) for n, (pattern, _, _) in enumerate(TOPICS)]
    broker.declare(Topology(tuple(queues), tuple(f"x{n}" for n in range(len(TOPICS)))))
    routed = broker.publish([Message(f"x{n}", routing_key, b"") for n, (_, routing_key, _) in enumerate(TOPICS)])
    answers = [(*topic[:2], matches) for topic, matches in zip(TOPICS, routed, strict=True)]
    assert answers == TOPICS


def test_each_message_is_told_whether_it_was_routed(broker: Broker) -> None:
    lost = Message("vcp", "nobody.command.device", b"")
    sent = [command(0), lost, command(1), lost, lost, command(2)]
    assert broker.publish(sent) == [True, False, True, False, False, True]


def test_of_thousands_each_is_told_the_truth(broker: Broker) -> None:
    sent = [command(number) if number % 3 else command(number, "nobody") for number in range(2500)]
    assert broker.publish(sent) == [bool(number % 3) for number in range(2500)]


def test_an_exchange_that_does_not_exist_routes_nothing_and_harms_no_other_message(broker: Broker) -> None:
    broker.delete([SCHEDULES])
    missing = Message("no-such-exchange", "acme.command.device", b"")
    assert broker.publish([command(0), missing, command(1), missing, command(0, "nobody")]) == [
        True, False, True, False, False,
    ]  # fmt: skip
    assert broker.publish([command(2)]) == [True]


def test_the_default_exchange_reaches_a_queue_by_its_name(broker: Broker) -> None:
    assert broker.publish([Message("", COMMANDS, b"x"), Message("", "vcp.nobody", b"")]) == [True, False]


def test_publishing_nothing_is_nothing(broker: Broker) -> None:
    assert broker.publish([]) == []


def test_threads_publish_side_by_side(broker: Broker) -> None:
    lost = command(0, "nobody")

    def publish(thread: int) -> list[bool]:
        return broker.publish([*numbered(100, start=100 * thread), lost])

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(publish, range(8)))
    assert answers == [[True] * 100 + [False]] * 8
    inbox = Inbox()
    broker.consumer({COMMANDS}, inbox)
    assert {int(delivery.body) for delivery in inbox.wait_for(800)} == set(range(800))
