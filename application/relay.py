"""The relay of the partner's commands: received, judged, and followed to their end (amqp.md)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from eventsourcing.persistence import IntegrityError

from application.context import Metadata
from application.event_log import EventLog, again_if_overtaken
from application.organisations import signing_key_field
from application.ports import SecretBox
from domain import commands, topology
from domain.commands import Family
from domain.organisation import Organisation
from domain.plant import Plant
from domain.queue_prefix import QueuePrefix
from domain.relayed_command import RejectionReason, RelayedCommand
from domain.trading_config import TradingConfig
from domain.vcp import VERSION, Received, Unreadable, signature_matches

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class CommandMessage:
    """A readable message, the queue prefix that it came in under and its routing key."""

    queue_prefix: str
    routing_key: str
    received: Received
    request_id: str

    @property
    def type(self) -> str:
        return self.routing_key.removeprefix(f"{self.queue_prefix}.")


@dataclass(frozen=True)
class PlantAck:
    """What a plant gateway says of a command, in the plant's own time."""

    command_id: UUID
    plant_id: UUID
    status: Literal["RECEIVED", "EXECUTED", "FAILED"]
    at: datetime
    detail: str | None


@dataclass(frozen=True)
class _Refusal:
    reason: RejectionReason
    detail: str | None = None
    silent: bool = False


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Relay:
    events: EventLog
    secrets: SecretBox
    emergency_signature_required: bool = False
    now: Clock = _now

    def check(self, message: CommandMessage) -> None:
        """Raises Unreadable for a message that no organisation could have meant."""
        if not topology.speaks_for(message.queue_prefix, message.routing_key):
            raise Unreadable("the routing key has another prefix than the queue")
        if commands.family_of(message.type) is None:
            raise Unreadable("no such command")
        if self._organization_id(message.queue_prefix) is None:
            raise Unreadable("nobody holds this queue prefix")

    def receive(self, messages: Sequence[CommandMessage]) -> None:
        """Judges and records them, all in one transaction unless one of them was seen before."""
        judged: dict[UUID, RelayedCommand] = {}
        again: list[CommandMessage] = []
        metadata_of: dict[UUID, Metadata] = {}
        for message in messages:
            command = self._judged(message)
            if command.id in judged:
                again.append(message)
            else:
                judged[command.id] = command
                metadata_of[command.id] = self._metadata(message)
        try:
            self.events.save_all(judged.values(), metadata_of)
        except IntegrityError:
            again = list(messages)
        for message in again:
            self._receive_one(message)

    @again_if_overtaken
    def acknowledge(self, ack: PlantAck) -> bool:
        """Records what the plant says; False when there is no such command of that plant."""
        command = self.events.find(RelayedCommand, ack.command_id)
        if command is None or command.plant_id != ack.plant_id:
            return False
        if ack.status == "EXECUTED":
            command.execute(ack.at, ack.detail)
        elif ack.status == "FAILED":
            command.fail(ack.at, ack.detail)
        self.events.save(command)
        return True

    @again_if_overtaken
    def expire(self, command_id: UUID) -> None:
        """Ends a command whose plant said nothing in time."""
        command = self.events.load(RelayedCommand, command_id)
        command.expire(self.now())
        self.events.save(command)

    def _receive_one(self, message: CommandMessage) -> None:
        """A message that may have been seen before: the same again, or another body under a taken message id."""
        command = self._judged(message)
        known = self.events.find(RelayedCommand, command.id)
        if known is not None and known.digest != message.received.digest:
            known = self._impostor(message)
            if known.version == 1:
                known.reject("DUPLICATE_MESSAGE_ID")
            else:
                known.repeat()
        elif known is not None:
            known.repeat()
        try:
            self.events.save_all([known or command], {(known or command).id: self._metadata(message)})
        except IntegrityError:
            self._receive_one(message)  # another worker was first: now it is known

    def _judged(self, message: CommandMessage) -> RelayedCommand:
        family = commands.family_of(message.type)
        organization_id = self._organization_id(message.queue_prefix)
        if family is None or organization_id is None:
            raise Unreadable("no such command")
        plant = self._plant(organization_id, message.received.envelope.site_id)
        command = self._created(message, family, organization_id, plant)
        verdict = self._verdict(message, family, organization_id, plant)
        if isinstance(verdict, _Refusal):
            command.reject(verdict.reason, verdict.detail, silent=verdict.silent)
        else:
            command.accept(verdict)
        return command

    def _verdict(
        self, message: CommandMessage, family: Family, organization_id: UUID, plant: Plant | None
    ) -> _Refusal | datetime:
        """The refusal, or the moment by which the plant must have answered."""
        envelope, now = message.received.envelope, self.now()
        if envelope.version != VERSION:
            return _Refusal("UNSUPPORTED_VERSION")
        required = family.signature_required or (
            self.emergency_signature_required and family.command_type == "EMERGENCY"
        )
        if required and envelope.signature is None:
            return _Refusal("SIGNATURE_MISSING", silent=True)
        if envelope.signature is not None and not self._is_signed(message.received, organization_id, now):
            return _Refusal("SIGNATURE_INVALID")
        if abs(now - envelope.timestamp) > (commands.FRESH_SIGNED if required else commands.FRESH_UNSIGNED):
            return _Refusal("STALE_MESSAGE")
        payload = commands.read_payload(family, envelope.payload)
        if isinstance(payload, str):
            return _Refusal("INVALID_PAYLOAD", payload)
        if not self.events.load(TradingConfig, TradingConfig.create_id(organization_id)).is_enabled:
            return _Refusal("TRADING_DISABLED")
        if plant is None:
            return _Refusal("UNKNOWN_SITE")
        deadline = payload.deadline() or now + commands.DEFAULT_LIFETIME
        return deadline if deadline > now else _Refusal("EXPIRED")

    def _is_signed(self, received: Received, organization_id: UUID, now: datetime) -> bool:
        """By one of the organisation's valid keys: the named one, or any where none is named."""
        organisation = self.events.load(Organisation, organization_id)
        kid = received.envelope.signature_kid
        for key in organisation.signing_keys(now):
            if kid is not None and kid not in (str(key.id), key.id.hex):
                continue
            try:
                signing_key = self.secrets.open(organization_id, signing_key_field(key.id), key.signing_key_version)
            except KeyError:
                continue  # forgotten: it signs nothing any more
            if signature_matches(received, signing_key):
                return True
        return False

    def _organization_id(self, queue_prefix: str) -> UUID | None:
        prefix = self.events.find(QueuePrefix, QueuePrefix.create_id(queue_prefix))
        return prefix.holder if prefix is not None else None

    def _plant(self, organization_id: UUID, site_id: str) -> Plant | None:
        """By its external id, or by its own id within the organisation."""
        plant = self.events.find(Plant, Plant.create_id(organization_id, site_id))
        if plant is None:
            try:
                plant = self.events.find(Plant, UUID(site_id))
            except ValueError:
                return None
        return plant if plant is not None and plant.organization_id == organization_id else None

    def _impostor(self, message: CommandMessage) -> RelayedCommand:
        organization_id = self._organization_id(message.queue_prefix)
        assert organization_id is not None
        envelope = message.received.envelope
        impostor_id = RelayedCommand.create_impostor_id(organization_id, envelope.message_id, message.received.digest)
        known = self.events.find(RelayedCommand, impostor_id)
        if known is not None:
            return known
        family = commands.family_of(message.type)
        assert family is not None
        plant = self._plant(organization_id, envelope.site_id)
        return self._created(message, family, organization_id, plant, impostor_id)

    def _created(
        self,
        message: CommandMessage,
        family: Family,
        organization_id: UUID,
        plant: Plant | None,
        command_id: UUID | None = None,
    ) -> RelayedCommand:
        envelope = message.received.envelope
        created: RelayedCommand = RelayedCommand._create(  # noqa: SLF001 - the library's way to give an id from outside
            RelayedCommand.Created,
            id=command_id or RelayedCommand.create_id(organization_id, envelope.message_id),
            organization_id=organization_id,
            queue_prefix=message.queue_prefix,
            plant_id=plant.id if plant else None,
            message_id=envelope.message_id,
            correlation_id=envelope.correlation_id,
            command_type=family.command_type,
            type=message.type,
            routing_key=message.routing_key,
            site_id=envelope.site_id,
            sent_at=envelope.timestamp.astimezone(UTC),
            payload=envelope.payload,
            digest=message.received.digest,
            signed=envelope.signature is not None,
        )
        return created

    def _metadata(self, message: CommandMessage) -> Metadata:
        envelope = message.received.envelope
        return Metadata(
            actor=f"partner:{message.queue_prefix}",
            source="amqp",
            request_id=message.request_id,
            correlation_id=envelope.correlation_id,
            causation_id=str(envelope.message_id),
        )
