"""The AMQP topology of one queue prefix: exchanges, queues and bindings as a pure function (amqp.md, Topology)."""

from dataclasses import dataclass, field
from typing import Literal

VCP_EXCHANGE = "vcp"
PLANT_EXCHANGE = "plant"
DEAD_QUEUE = "vcp.dead"
INGEST_QUEUE = "vcp.ingest"
EMERGENCY_QUEUE = "vcp.emergency"
EMERGENCY_KEY = "command.emergency"
PLANT_ACKS_QUEUE = "vcp.plant-acks"

_DAY_MS = 24 * 60 * 60 * 1000
_MB = 1024 * 1024

Direction = Literal["inbound", "outbound"]


@dataclass(frozen=True)
class Binding:
    """One binding of a queue to an exchange."""

    exchange: str
    routing_key: str


@dataclass(frozen=True)
class Queue:
    """A durable quorum queue, its bindings and its bounds.

    `max_age_ms` and `max_bytes` are None where unbounded; the oldest messages go first. A queue that nobody consumed
    for `expires_ms` goes as a whole.
    """

    name: str
    bindings: tuple[Binding, ...] = ()
    direction: Direction = "inbound"
    description: str = ""
    max_age_ms: int | None = None
    max_bytes: int | None = None
    max_length: int | None = None
    expires_ms: int | None = None

    @property
    def arguments(self) -> dict[str, str | int]:
        """The AMQP arguments of its declaration."""
        bounds = {
            "x-message-ttl": self.max_age_ms,
            "x-max-length-bytes": self.max_bytes,
            "x-max-length": self.max_length,
            "x-expires": self.expires_ms,
        }
        set_bounds = {name: value for name, value in bounds.items() if value is not None}
        overflow = {"x-overflow": "drop-head"} if self.max_bytes or self.max_length else {}
        return {"x-queue-type": "quorum", **set_bounds, **overflow}


@dataclass(frozen=True)
class Topology:
    """What must exist at the broker: durable topic exchanges, then queues."""

    queues: tuple[Queue, ...]
    exchanges: tuple[str, ...] = field(default=(VCP_EXCHANGE, PLANT_EXCHANGE))


def queues(prefix: str) -> tuple[Queue, ...]:
    """The seven queues of an enabled organisation, inbound first. Direction is seen from us: inbound = partner → us."""

    def queue(
        name: str,
        direction: Direction,
        keys: tuple[str, ...],
        description: str,
        max_age_ms: int | None = None,
        max_bytes: int | None = None,
    ) -> Queue:
        bindings = tuple(Binding(VCP_EXCHANGE, f"{prefix}.{key}") for key in keys)
        return Queue(f"vcp.{prefix}.{name}", bindings, direction, description, max_age_ms, max_bytes)

    week = 7 * _DAY_MS
    return (
        queue("command", "inbound", ("command.#",), "Setpoints, device, mode and emergency commands"),
        queue("config", "inbound", ("config.#",), "Site configuration requests"),
        queue("schedule", "inbound", ("schedule.*",), "Dispatch plans: create, cancel"),
        queue(
            "event.telemetry",
            "outbound",
            ("event.telemetry.#",),
            "Realtime telemetry and 1-minute meters",
            _DAY_MS,
            256 * _MB,
        ),
        queue("event.status", "outbound", ("event.command.#", "event.status.#"), "Command ACK / NACK", week),
        queue("event.execution", "outbound", ("event.execution.#",), "Execution results", week),
        queue("event.alarm", "outbound", ("event.alarm.#",), "Alarms", week),
    )


def shared() -> Topology:
    """What exists once for all organisations: dead letters, our telemetry intake, the plants' acknowledgements, and a
    second copy of every emergency, so that it need not wait behind what its organisation sent before."""
    return Topology(
        (
            Queue(DEAD_QUEUE, max_age_ms=7 * _DAY_MS, max_length=100_000, description="Dead letters"),
            Queue(INGEST_QUEUE, (Binding(VCP_EXCHANGE, "*.event.telemetry.#"),), description="Telemetry intake"),
            Queue(EMERGENCY_QUEUE, (Binding(VCP_EXCHANGE, f"*.{EMERGENCY_KEY}"),), description="Emergencies overtake"),
            Queue(PLANT_ACKS_QUEUE, (Binding(PLANT_EXCHANGE, "plant.*.ack"),), description="Plant acknowledgements"),
        )
    )


def of_prefix(prefix: str) -> Topology:
    """What an organisation with this queue prefix has of its own while trading is enabled."""
    return Topology(queues(prefix))


def needed_by(prefix: str) -> Topology:
    """The same with what is shared, so that nothing which its plants send is lost before a first worker runs."""
    return Topology((*shared().queues, *queues(prefix)))


def prefix_of(queue_name: str) -> str | None:
    """The queue prefix in the name of an organisation's inbound queue, else None."""
    parts = queue_name.split(".")
    inbound = len(parts) == 3 and parts[0] == "vcp" and parts[2] in ("command", "config", "schedule")
    return parts[1] if inbound else None


def sender_of(queue_name: str, routing_key: str) -> str | None:
    """The queue prefix that a delivery speaks for: its queue's. In the queue of emergencies, which all organisations
    share, it is the key's own, of which the broker's topic permissions say who may use it."""
    if queue_name == EMERGENCY_QUEUE:
        prefix, _, key = routing_key.partition(".")
        return prefix if key == EMERGENCY_KEY else None
    return prefix_of(queue_name)


def speaks_for(prefix: str, routing_key: str) -> bool:
    """Whether a routing key begins with this prefix."""
    return routing_key.startswith(f"{prefix}.")
