"""An organisation that trades, in memory: its log, secrets and plant, a clock that stands, and what was published."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from eventsourcing.domain import AggregateEvent

from application.context import Metadata, acting
from application.event_log import EventLog
from application.organisations import Organisations
from application.ports import DeadLetter, Delivery, Message, Veil
from application.publisher import Publisher, Recorded
from application.relay import Relay
from domain.organisation import Organisation
from domain.plant import Plant, PlantDescription
from domain.relayed_command import RelayedCommand
from domain.topology import Topology
from domain.trading_config import TradingConfig
from infra.local_broker import LocalBroker
from infra.sandbox.partner import SandboxPartner
from interfaces.amqp import Commands

SETPOINT = {
    "type": "POWER",
    "targetValueKw": 40.0,
    "direction": "EXPORT",
    "priority": "NORMAL",
    "validFrom": "2026-03-01T12:00:00Z",
    "validUntil": "2026-03-01T12:10:00Z",
}
PAYLOADS: dict[str, dict[str, Any]] = {
    "command.site-setpoint": SETPOINT,
    "command.device.inverter-1": {"deviceId": "inverter-1", "action": "RESTART", "params": {"delay": 5}},
    "command.mode": {"mode": "PEAK_SHAVING", "validFrom": "2026-03-01T12:00:00Z"},
    "command.emergency": {"action": "STOP", "reason": "fire"},
    "schedule.create": {
        "scheduleId": "s-1",
        "priority": "HIGH",
        "slots": [
            {
                "from": "2026-03-01T13:00:00Z", "to": "2026-03-01T14:00:00Z",
                "direction": "IMPORT", "targetValueKw": 10,
            },
        ],
    },
    "schedule.cancel": {"scheduleId": "s-1"},
    "config.limits": {"anything": [1, 2, 3]},
}  # fmt: skip


class FakeSecrets:
    """A SecretBox in memory."""

    def __init__(self) -> None:
        self.sealed: dict[tuple[UUID, str], list[str]] = defaultdict(list)

    def seal(self, organization_id: UUID, field: str, secret: str) -> int:
        self.sealed[organization_id, field].append(secret)
        return len(self.sealed[organization_id, field])

    def open(self, organization_id: UUID, field: str, version: int) -> str:
        versions = self.sealed.get((organization_id, field), [])
        if not 0 < version <= len(versions):
            raise KeyError(field)
        return versions[version - 1]

    def forget(self, organization_id: UUID, field: str, up_to: int) -> None:
        raise NotImplementedError("the relay forgets nothing")

    def veil(self, organization_id: UUID) -> Veil:
        return str

    def unveil(self, organization_id: UUID) -> Veil:
        return str

    def erase(self, organization_id: UUID) -> None:
        raise NotImplementedError("the relay erases nothing")


class FakeHasher:
    def hash(self, secret: str) -> str:
        return f"hash of {secret}"


class FakeBroker(LocalBroker):
    """Keeps what is published; `offline` names plants that no queue is bound for."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[Message] = []
        self.offline: set[UUID] = set()
        self.without_queue: set[str] = set()
        self.refusing: set[str] = set()
        self.declared: list[Topology] = []
        self.failure: Exception | None = None
        self.meanwhile: Callable[[], None] | None = None

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        if self.failure is not None:
            raise self.failure
        self.published.extend(messages)
        if self.meanwhile is not None:
            self.meanwhile()
        return [self._is_routed(message.routing_key) for message in messages]

    def declare(self, topology: Topology) -> None:
        self.declared.append(topology)
        self.without_queue.clear()

    def _is_routed(self, key: str) -> bool:
        return key not in self.without_queue | self.refusing and not any(str(plant) in key for plant in self.offline)


@dataclass
class World:
    """Organisation `acme`, trading enabled, one plant `esm-001`, one key that signs."""

    now: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    events: EventLog = field(default_factory=EventLog)
    secrets: FakeSecrets = field(default_factory=FakeSecrets)
    broker: FakeBroker = field(default_factory=FakeBroker)
    emergency_signature_required: bool = False

    def __post_init__(self) -> None:
        self.organisations = Organisations(self.events, self.secrets, FakeHasher())
        with self.acting():
            self.organization_id = self.organisations.create("acme").id
            self.key = self.organisations.mint_key(self.organization_id, "esm", ["trading:connect"])
        self.plant_id = self.add_plant(self.organization_id).id
        self.change_config(enabled)
        self.relay = Relay(
            self.events,
            self.secrets,
            emergency_signature_required=self.emergency_signature_required,
            now=lambda: self.now,
        )
        self.commands = Commands(self.relay)
        self.publisher = Publisher(self.events, self.broker, now=lambda: self.now)
        self.followed = self.last_position

    @property
    def partner(self) -> SandboxPartner:
        return SandboxPartner(self.broker, "acme", self.key.signing_key)

    @property
    def anonymous(self) -> SandboxPartner:
        return SandboxPartner(self.broker, "acme")

    @property
    def last_position(self) -> int:
        return self.events.recorder.max_notification_id() or 0

    def acting(self) -> Any:
        return acting(Metadata(actor="cli", source="cli"))

    def change_config(self, change: Callable[[TradingConfig], None], organization_id: UUID | None = None) -> None:
        with self.acting():
            config_id = TradingConfig.create_id(organization_id or self.organization_id)
            config = self.events.load(TradingConfig, config_id)
            change(config)
            self.events.save(config)

    def add_plant(self, organization_id: UUID) -> Plant:
        plant = Plant(organization_id, "esm-001", "Brno depot")
        plant.link(PlantDescription("Brno depot"))
        with self.acting():
            self.events.save(plant)
        return plant

    def organisation(self) -> Organisation:
        return self.events.load(Organisation, self.organization_id)

    def body(self, kind: str = "command.site-setpoint", **changes: Any) -> bytes:
        """A signed message of a kind, with fields of its envelope (and `payload`, `site_id`) changed."""
        return _body(self.partner, self.now, kind, changes)

    def unsigned(self, kind: str = "command.site-setpoint", **changes: Any) -> bytes:
        return _body(self.anonymous, self.now, kind, changes)

    def deliver(self, *bodies: bytes, kind: str = "command.site-setpoint", key: str | None = None) -> list[DeadLetter]:
        return self.commands([delivery(body, key or f"acme.{kind}") for body in bodies])

    def command(self, message_id: UUID | str) -> RelayedCommand:
        command_id = RelayedCommand.create_id(self.organization_id, UUID(str(message_id)))
        return self.events.load(RelayedCommand, command_id)

    def all_commands(self) -> list[RelayedCommand]:
        recorded = [each.event for each in self.recorded(0)]
        ids = [event.originator_id for event in recorded if isinstance(event, RelayedCommand.Created)]
        return [self.events.load(RelayedCommand, command_id) for command_id in ids]

    def recorded(self, after: int) -> list[Recorded]:
        notifications = self.events.recorder.select_notifications(after + 1, 10_000)
        return [
            Recorded(n.id, _event(self.events.mapper.to_domain_event(n)), {"request_id": "r-1"}) for n in notifications
        ]

    def publish(self) -> list[Message]:
        """What the publisher sends for all that it has not followed yet."""
        batch = self.recorded(self.followed)
        before = len(self.broker.published)
        self.publisher.apply(None, [each for each in batch if self.publisher.concerns(each.event)])
        self.followed = batch[-1].position if batch else self.followed
        return self.broker.published[before:]


def delivery(body: bytes, routing_key: str, queue: str | None = None) -> Delivery:
    kind = routing_key.split(".")[1] if "." in routing_key else "command"
    return Delivery(queue or f"vcp.acme.{kind}", "vcp", routing_key, body)


def later(moment: datetime, **delta: float) -> datetime:
    return moment + timedelta(**delta)


def enabled(config: TradingConfig) -> None:
    config.change_partner("https://esm.example.com", "client")
    config.set_credentials(1)
    config.enable()


def _body(partner: SandboxPartner, now: datetime, kind: str, changes: dict[str, Any]) -> bytes:
    changes.setdefault("messageId", str(uuid4()))
    changes.setdefault("timestamp", now.isoformat())
    payload = changes.pop("payload", PAYLOADS.get(kind, {}))
    return partner.body(changes.pop("site_id", "esm-001"), payload, **changes)


def _event(event: Any) -> AggregateEvent:
    assert isinstance(event, AggregateEvent)
    return event
