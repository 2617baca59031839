"""What a partner may do at the broker: a pure function of its queue prefix (amqp.md, Partner logins).

It reads its outbound queues, writes to `vcp` what its inbound queues are there for, and may have telemetry queues of
its own beside ours. Everything that is not said here is denied.
"""

import re

from domain.commands import FAMILIES
from domain.topology import VCP_EXCHANGE, queues

UNPROVEN = "it came out of another queue, so its routing key proves nothing"
"""Why a message is refused that a queue dead-lettered: a partner's own queue may name any routing key for what dies in
it, and the broker asks for no permission then. Nor does it for CC and BCC, but those leave the routing key alone."""

_WORD = re.compile(r"[A-Za-z0-9_-]{1,128}")
_INBOUND = ("command", "config", "schedule")
_OPEN_ENDED = tuple(tuple(family.key.split(".")) for family in FAMILIES if family.open_ended)


def may_use(prefix: str, resource: str, name: str, permission: str) -> bool:
    """An exchange or a queue. Publishing writes to the exchange; binding writes to the queue and reads the exchange;
    declaring and deleting configure, consuming and purging read."""
    match resource, permission:
        case "exchange", "write" | "read":
            return name == VCP_EXCHANGE
        case "queue", "read":
            return _is_extra_queue(prefix, name) or _is_outbound(prefix, name)
        case "queue", "configure" | "write":
            return _is_extra_queue(prefix, name)
    return False


def may_route(prefix: str, exchange: str, permission: str, routing_key: str) -> bool:
    """A routing key of a topic exchange: `write` is a message's, `read` a binding's, which may hold wildcards."""
    if exchange != VCP_EXCHANGE:
        return False
    head, *words = routing_key.split(".")
    if head != prefix:
        return False
    return (permission == "write" and _is_inbound(words)) or (permission == "read" and _is_telemetry(words))


def _is_inbound(words: list[str]) -> bool:
    """`command.*`, `config.*` or `schedule.*`; what follows a device or a config request may go on."""
    if len(words) < 2 or words[0] not in _INBOUND or not all(words):
        return False
    return len(words) == 2 or any(words[: len(family)] == list(family) for family in _OPEN_ENDED)


def _is_telemetry(words: list[str]) -> bool:
    """`event.telemetry.#`, or any part of what it matches."""
    return words[:2] == ["event", "telemetry"] and len(words) > 2 and all(words)


def _is_outbound(prefix: str, name: str) -> bool:
    return any(queue.name == name and queue.direction == "outbound" for queue in queues(prefix))


def _is_extra_queue(prefix: str, name: str) -> bool:
    """`vcp.{p}.event.telemetry.*`, where `*` is one word of letters, digits, `-` and `_`."""
    head = f"vcp.{prefix}.event.telemetry."
    return name.startswith(head) and _WORD.fullmatch(name.removeprefix(head)) is not None
