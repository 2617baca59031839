"""What a partner may do at the broker, and, one by one, what it may not."""

import pytest
from hypothesis import assume
from hypothesis import given as for_any
from hypothesis import strategies as st

from domain import topology
from domain.organisation import SLUG
from domain.partner_rights import may_route, may_use

PERMISSIONS = ("configure", "write", "read")
OUTBOUND = ["telemetry", "status", "execution", "alarm"]
EXTRA = "vcp.acme.event.telemetry.dashboard"
PREFIXES = st.from_regex(SLUG, fullmatch=True)
NAMES = st.one_of(
    st.text(),
    st.sampled_from(["", "vcp", "plant", "amq.topic", "amq.default", "vcp.dead", "vcp.ingest", "vcp.emergency"]),
    st.from_regex(r"vcp\.(acme|rival)\.(command|config|schedule|event\.(telemetry|status|alarm)(\.[a-z.*#]+)?)"),
)


def allowed(resource: str, name: str) -> set[str]:
    return {permission for permission in PERMISSIONS if may_use("acme", resource, name, permission)}


@pytest.mark.parametrize("kind", OUTBOUND)
def test_its_outbound_queues_are_read(kind: str) -> None:
    assert allowed("queue", f"vcp.acme.event.{kind}") == {"read"}


def test_telemetry_queues_of_its_own_are_its_own() -> None:
    assert allowed("queue", EXTRA) == {"configure", "write", "read"}


def test_vcp_is_written_to_and_bound_to() -> None:
    assert allowed("exchange", "vcp") == {"write", "read"}


@pytest.mark.parametrize(
    "name",
    [
        "vcp.acme.command", "vcp.acme.config", "vcp.acme.schedule",
        "vcp.rival.event.telemetry", "vcp.rival.event.status", "vcp.rival.event.telemetry.mine", "vcp.rival.command",
        "vcp.acme-2.event.status", "vcp.acme.event.status.mine", "vcp.acme.event.alarm.mine", "vcp.acme.event",
        "vcp.acme.event.telemetry.", "vcp.acme.event.telemetry.a.b", "vcp.acme.event.telemetry.*",
        "vcp.acme.event.telemetry.#", "vcp.acme.event.telemetry.a\n", "VCP.acme.event.status",
        "vcp.dead", "vcp.ingest", "vcp.emergency", "vcp.plant-acks", "sandbox.plant.1", "mine", "", "amq.gen-1",
    ],
)  # fmt: skip
def test_no_other_queue(name: str) -> None:
    assert allowed("queue", name) == set()


@pytest.mark.parametrize("name", ["plant", "amq.topic", "amq.direct", "amq.default", "", "vcp2", "amq.rabbitmq.trace"])
def test_no_other_exchange(name: str) -> None:
    assert allowed("exchange", name) == set()


def test_no_other_kind_of_thing() -> None:
    assert allowed("topic", "vcp") == allowed("vhost", "vcp") == allowed("", EXTRA) == set()
    assert not may_use("acme", "queue", EXTRA, "delete")


@pytest.mark.parametrize(
    "key",
    [
        "command.site-setpoint", "command.device", "command.device.inverter-1", "command.device.a.b", "command.mode",
        "command.emergency", "config.limits", "config.limits.a", "schedule.create", "schedule.cancel",
    ],
)  # fmt: skip
def test_what_its_inbound_queues_are_there_for_is_written(key: str) -> None:
    assert may_route("acme", "vcp", "write", f"acme.{key}")
    assert not may_route("acme", "vcp", "read", f"acme.{key}")
    assert not may_route("acme", "plant", "write", f"acme.{key}")
    assert not may_route("acme", "vcp", "write", f"rival.{key}")
    assert not may_route("acme", "vcp", "write", f"acme-2.{key}")
    assert not may_route("acme", "vcp", "configure", f"acme.{key}")


@pytest.mark.parametrize(
    "key",
    [
        "", "acme", "acme.", "acme.command", "acme.command.", "acme..command.mode", "acme.command.mode.x",
        "acme.command.device.", "acme.schedule.create.x", "acme.schedule", "acme.config",
        "acme.event.telemetry.realtime.esm-001", "acme.event.command.ack", "acme.event.execution", "acme.event.alarm",
        "*.command.mode", "#", "rival.acme.command.mode", "acmecommand.mode", "ACME.command.mode", "acme.commands.mode",
        "plant.1.command",
    ],
)  # fmt: skip
def test_no_other_key_is_written(key: str) -> None:
    assert not may_route("acme", "vcp", "write", key)


@pytest.mark.parametrize("key", ["#", "realtime.#", "*.esm-001", "realtime.esm-001", "meter.*"])
def test_telemetry_is_bound_to(key: str) -> None:
    assert may_route("acme", "vcp", "read", f"acme.event.telemetry.{key}")
    assert not may_route("acme", "vcp", "read", f"rival.event.telemetry.{key}")
    assert not may_route("acme", "plant", "read", f"acme.event.telemetry.{key}")


@pytest.mark.parametrize(
    "key",
    [
        "", "#", "*", "#.telemetry.#", "*.event.telemetry.#", "acme.#", "acme.event.#", "acme.*.telemetry.#",
        "acme.event.*.#", "acme.event.command.#", "acme.event.alarm.#", "acme.command.#", "acme.event.telemetry.",
        "acme.event.telemetry..x", "#.acme.event.telemetry.#", "plant.*.command",
    ],
)  # fmt: skip
def test_no_other_key_is_bound_to(key: str) -> None:
    assert not may_route("acme", "vcp", "read", key)


@for_any(PREFIXES, PREFIXES, NAMES)
def test_two_partners_share_nothing_but_the_exchange(one: str, other: str, name: str) -> None:
    assume(one != other)
    both = {each.name for prefix in (one, other) for each in topology.queues(prefix)} | {name}
    for queue in both:
        of_one = any(may_use(one, "queue", queue, permission) for permission in PERMISSIONS)
        of_other = any(may_use(other, "queue", queue, permission) for permission in PERMISSIONS)
        assert not (of_one and of_other)


@for_any(PREFIXES, PREFIXES, st.sampled_from(PERMISSIONS), st.text(alphabet="acmdeoiflnty.*#-", max_size=40))
def test_no_key_is_two_partners(one: str, other: str, permission: str, rest: str) -> None:
    assume(one != other)
    for key in (rest, f"{one}.{rest}", f"{other}.{rest}", f"{one}.command.{rest}", f"{other}.event.telemetry.{rest}"):
        assert not (may_route(one, "vcp", permission, key) and may_route(other, "vcp", permission, key))
