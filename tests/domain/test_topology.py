"""The AMQP topology of a queue prefix: the table of the AMQP contract, row by row."""

import pytest
from hypothesis import given as for_any
from hypothesis import strategies as st

from domain import topology
from domain.organisation import SLUG
from domain.topology import Binding, Queue

DAY_MS = 86_400_000
TABLE: list[tuple[str, str, list[str], dict[str, str | int]]] = [
    ("vcp.acme.command", "inbound", ["acme.command.#"], {}),
    ("vcp.acme.config", "inbound", ["acme.config.#"], {}),
    ("vcp.acme.schedule", "inbound", ["acme.schedule.*"], {}),
    (
        "vcp.acme.event.telemetry",
        "outbound",
        ["acme.event.telemetry.#"],
        {"x-message-ttl": DAY_MS, "x-max-length-bytes": 268_435_456, "x-overflow": "drop-head"},
    ),
    (
        "vcp.acme.event.status",
        "outbound",
        ["acme.event.command.#", "acme.event.status.#"],
        {"x-message-ttl": 7 * DAY_MS},
    ),
    ("vcp.acme.event.execution", "outbound", ["acme.event.execution.#"], {"x-message-ttl": 7 * DAY_MS}),
    ("vcp.acme.event.alarm", "outbound", ["acme.event.alarm.#"], {"x-message-ttl": 7 * DAY_MS}),
]
PREFIXES = st.from_regex(SLUG, fullmatch=True)


def test_the_queues_of_a_prefix_are_the_contracts_table() -> None:
    described = [
        (queue.name, queue.direction, [binding.routing_key for binding in queue.bindings], queue.arguments)
        for queue in topology.queues("acme")
    ]
    assert described == [
        (name, direction, keys, {"x-queue-type": "quorum", **bounds}) for name, direction, keys, bounds in TABLE
    ]


def test_all_of_them_are_bound_to_vcp_and_say_what_they_carry() -> None:
    for queue in topology.queues("acme"):
        assert {binding.exchange for binding in queue.bindings} == {"vcp"}
        assert queue.description


def test_what_exists_once_for_all() -> None:
    dead, ingest, emergencies, acks = topology.shared().queues
    assert (dead.name, dead.bindings) == ("vcp.dead", ())
    assert dead.arguments == {
        "x-queue-type": "quorum",
        "x-message-ttl": 7 * DAY_MS,
        "x-max-length": 100_000,
        "x-overflow": "drop-head",
    }
    assert (ingest.name, ingest.bindings) == ("vcp.ingest", (Binding("vcp", "*.event.telemetry.#"),))
    assert (acks.name, acks.bindings) == ("vcp.plant-acks", (Binding("plant", "plant.*.ack"),))
    assert (emergencies.name, emergencies.bindings) == ("vcp.emergency", (Binding("vcp", "*.command.emergency"),))
    assert ingest.arguments == emergencies.arguments == acks.arguments == {"x-queue-type": "quorum"}


def test_exchanges() -> None:
    assert topology.of_prefix("acme").exchanges == topology.shared().exchanges == ("vcp", "plant")
    assert topology.of_prefix("acme").queues == topology.queues("acme")


def test_a_queue_may_expire_as_a_whole() -> None:
    assert Queue("q", expires_ms=60_000).arguments == {"x-queue-type": "quorum", "x-expires": 60_000}


@for_any(PREFIXES)
def test_the_prefix_is_in_the_name_of_an_inbound_queue_only(prefix: str) -> None:
    for queue in topology.queues(prefix):
        assert topology.prefix_of(queue.name) == (prefix if queue.direction == "inbound" else None)


@pytest.mark.parametrize(
    "name",
    [
        "vcp.dead",
        "vcp.ingest",
        "vcp.emergency",
        "vcp.plant-acks",
        "",
        "acme",
        "vcp.acme",
        "x.acme.command",
        "vcp.a.b.command",
    ],
)
def test_other_queues_belong_to_no_prefix(name: str) -> None:
    assert topology.prefix_of(name) is None


@pytest.mark.parametrize(
    ("queue", "key", "sender"),
    [
        ("vcp.emergency", "acme.command.emergency", "acme"),
        ("vcp.emergency", "acme.command.mode", None),
        ("vcp.emergency", "acme.command.emergency.now", None),
        ("vcp.emergency", "rival.acme.command.emergency", None),
        ("vcp.emergency", "vcp.emergency", None),
        ("vcp.acme.command", "rival.command.emergency", "acme"),
        ("vcp.ingest", "acme.command.emergency", None),
    ],
)
def test_who_sent_it_says_the_queue_and_only_for_emergencies_the_key(queue: str, key: str, sender: str | None) -> None:
    assert topology.sender_of(queue, key) == sender


@pytest.mark.parametrize(
    ("routing_key", "speaks"),
    [
        ("acme.command.mode", True),
        ("acme.", True),
        ("acme", False),
        ("acme-north.command.mode", False),
        ("acmecommand", False),
        ("Acme.command", False),
        ("rival.acme.command", False),
        ("", False),
    ],
)
def test_a_routing_key_speaks_for_the_prefix_it_begins_with(routing_key: str, speaks: bool) -> None:
    assert topology.speaks_for("acme", routing_key) is speaks


@for_any(PREFIXES, PREFIXES)
def test_two_prefixes_share_nothing(one: str, other: str) -> None:
    if one != other:
        assert not {queue.name for queue in topology.queues(one)} & {queue.name for queue in topology.queues(other)}
        assert not topology.speaks_for(one, f"{other}.command.mode")
