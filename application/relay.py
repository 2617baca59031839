"""The relay of the partner's commands: received, judged, and followed to their end (amqp.md)."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from eventsourcing.persistence import IntegrityError

from application.context import Clock, Metadata, metadata, utc_now
from application.event_log import EventLog, again_if_overtaken
from application.ports import SecretBox
from application.sight import Sight
from domain import commands, topology
from domain.commands import Family
from domain.plant import Plant
from domain.relayed_command import RejectionReason, RelayedCommand
from domain.vcp import VERSION, Received, Unreadable, signature_matches


@dataclass(frozen=True)
class CommandMessage:
    """A readable message, the queue prefix that it came in under and its routing key."""

    queue_prefix: str
    routing_key: str
    received: Received
    request_id: str
    overtaking: bool = False
    """Whether it came by the queue of emergencies; its copy in the organisation's own queue is no repeat."""
    traceparent: str | None = None

    @property
    def type(self) -> str:
        return self.routing_key.removeprefix(f"{self.queue_prefix}.")

    @property
    def is_copy(self) -> bool:
        return self.type == topology.EMERGENCY_KEY and not self.overtaking


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


@dataclass(frozen=True)
class Relay:
    events: EventLog
    secrets: SecretBox
    emergency_signature_required: bool = False
    fresh_signed: timedelta = commands.FRESH_SIGNED
    fresh_unsigned: timedelta = commands.FRESH_UNSIGNED
    now: Clock = utc_now
    count_refusal: Callable[[str], object] = lambda _: None
    count_repeat: Callable[[], object] = lambda: None

    def look(self) -> Sight:
        """What one batch is checked and judged by."""
        return Sight(self.events, self.secrets)

    def check(self, message: CommandMessage, sight: Sight | None = None) -> None:
        """Raises Unreadable for a message that no organisation could have meant."""
        if not topology.speaks_for(message.queue_prefix, message.routing_key):
            raise Unreadable("the routing key has another prefix than the queue")
        if commands.family_of(message.type) is None:
            raise Unreadable("no such command")
        if (sight or self.look()).organization_id(message.queue_prefix) is None:
            raise Unreadable("nobody holds this queue prefix")

    def receive(self, messages: Sequence[CommandMessage], sight: Sight | None = None) -> None:
        """Judges and records them, all in one transaction unless one of them was seen before."""
        sight = sight or self.look()
        holders = [(sight.organization_id(message.queue_prefix), message) for message in messages]
        sight.expect((holder, message.received.envelope.site_id) for holder, message in holders if holder is not None)
        judged: dict[UUID, tuple[CommandMessage, RelayedCommand]] = {}
        again: list[CommandMessage] = []
        for message in messages:
            command = self._judged(message, sight)
            if command.id in judged:
                again.append(message)
            else:
                judged[command.id] = (message, command)
        # The copy of an emergency is known already, most often.
        if any(message.is_copy for message in messages) or not self._record_new(judged.values()):
            known = self.events.find_all(RelayedCommand, list(judged))
            # Judged anew: a save takes an aggregate's events also when it fails.
            new = [
                (message, self._judged(message, sight))
                for command_id, (message, _) in judged.items()
                if command_id not in known
            ]
            seen = [message for command_id, (message, _) in judged.items() if command_id in known]
            again = [*seen, *again] if self._record_new(new) else list(messages)
        for message in again:
            self._receive_one(message, sight)

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
        self.events.save(command, metadata=replace(metadata(), correlation_id=command.correlation))
        return True

    @again_if_overtaken
    def expire(self, command_id: UUID) -> None:
        """Ends a command whose plant said nothing in time."""
        command = self.events.load(RelayedCommand, command_id)
        command.expire(self.now())
        self.events.save(command, metadata=self.events.following(command_id))

    def _record_new(self, judged: Collection[tuple[CommandMessage, RelayedCommand]]) -> bool:
        """In one transaction; False when one of them is not new."""
        metadata_of = {command.id: self._metadata(message) for message, command in judged}
        try:
            self.events.save_all([command for _, command in judged], metadata_of)
        except IntegrityError:
            return False
        for _, command in judged:
            if command.rejection is not None:
                self.count_refusal(command.rejection)
        return True

    def _receive_one(self, message: CommandMessage, sight: Sight) -> None:
        """A message that may have been seen before: the same again, or another body under a taken message id."""
        command = self._judged(message, sight)
        known = self.events.find(RelayedCommand, command.id)
        if known is not None and known.digest != message.received.digest:
            known = self._impostor(message, sight)
            if known.version == 1:
                known.reject("DUPLICATE_MESSAGE_ID", silent=command.silent)
                self.count_refusal("DUPLICATE_MESSAGE_ID")
                if message.overtaking:
                    known.overtake()
            else:
                self._repeat(known, message)
        elif known is not None:
            self._repeat(known, message)
        try:
            self.events.save_all([known or command], {(known or command).id: self._metadata(message)})
        except IntegrityError:
            self._receive_one(message, sight)  # another worker was first: now it is known

    def _repeat(self, known: RelayedCommand, message: CommandMessage) -> None:
        """An emergency is delivered twice each time that it is sent: only one of the two may count as a repeat."""
        if message.overtaking:
            known.overtake()
        elif not message.is_copy:
            known.repeat()
            self.count_repeat()

    def _judged(self, message: CommandMessage, sight: Sight) -> RelayedCommand:
        family = commands.family_of(message.type)
        organization_id = sight.organization_id(message.queue_prefix)
        if family is None or organization_id is None:
            raise Unreadable("no such command")
        plant = sight.plant(organization_id, message.received.envelope.site_id)
        command = self._created(message, family, organization_id, plant)
        verdict = self._verdict(message, family, organization_id, plant, sight)
        if isinstance(verdict, _Refusal):
            command.reject(verdict.reason, verdict.detail, silent=verdict.silent)
        else:
            command.accept(verdict)
        if message.overtaking:
            command.overtake()
        return command

    def _verdict(
        self, message: CommandMessage, family: Family, organization_id: UUID, plant: Plant | None, sight: Sight
    ) -> _Refusal | datetime:
        """The refusal, or the moment by which the plant must have answered."""
        envelope, now = message.received.envelope, self.now()
        required = family.signature_required or (
            self.emergency_signature_required and family.command_type == "EMERGENCY"
        )
        unauthenticated = required and envelope.signature is None
        if envelope.version != VERSION:
            return _Refusal("UNSUPPORTED_VERSION", silent=unauthenticated)
        if unauthenticated:
            return _Refusal("SIGNATURE_MISSING", silent=True)
        keys = sight.signing_keys(organization_id, envelope.signature_kid, now)
        if envelope.signature is not None and not any(signature_matches(message.received, key) for key in keys):
            return _Refusal("SIGNATURE_INVALID")
        if abs(now - envelope.timestamp) > (self.fresh_signed if required else self.fresh_unsigned):
            return _Refusal("STALE_MESSAGE")
        payload = commands.read_payload(family, envelope.payload)
        if isinstance(payload, str):
            return _Refusal("INVALID_PAYLOAD", payload)
        if not sight.trades(organization_id):
            return _Refusal("TRADING_DISABLED")
        if plant is None:
            return _Refusal("UNKNOWN_SITE")
        deadline = payload.deadline() or now + commands.DEFAULT_LIFETIME
        return deadline if deadline > now else _Refusal("EXPIRED")

    def _impostor(self, message: CommandMessage, sight: Sight) -> RelayedCommand:
        organization_id = sight.organization_id(message.queue_prefix)
        assert organization_id is not None
        envelope = message.received.envelope
        impostor_id = RelayedCommand.create_impostor_id(organization_id, envelope.message_id, message.received.digest)
        known = self.events.find(RelayedCommand, impostor_id)
        if known is not None:
            return known
        family = commands.family_of(message.type)
        assert family is not None
        plant = sight.plant(organization_id, envelope.site_id)
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
            correlation_id=envelope.correlation_id or str(envelope.message_id),
            causation_id=str(envelope.message_id),
            traceparent=message.traceparent,
        )
