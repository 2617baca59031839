"""What leaves us over AMQP, derived from the event log alone: acknowledgements, plant commands, execution messages."""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeGuard
from uuid import UUID

from eventsourcing.domain import AggregateEvent
from eventsourcing.persistence import IntegrityError

from application.alarms import ALARM_EVENTS, alarm_message
from application.context import Clock, Metadata, acting, utc_now
from application.event_log import EventLog, again_if_overtaken
from application.ports import Broker, Message
from domain import topology, vcp
from domain.canonical import canonical
from domain.errors import BrokerUnreachable
from domain.queue_prefix import QueuePrefix
from domain.relayed_command import RelayedCommand
from domain.topology import PLANT_EXCHANGE, VCP_EXCHANGE
from domain.trading_config import TradingConfig

log = logging.getLogger(__name__)

REMEMBERED = 2_000
ANSWERED = (
    RelayedCommand.Accepted,
    RelayedCommand.Rejected,
    RelayedCommand.Repeated,
    RelayedCommand.Executed,
    RelayedCommand.Failed,
    RelayedCommand.Expired,
)


@dataclass(frozen=True)
class Recorded:
    """An event as the log has it."""

    position: int
    event: AggregateEvent
    metadata: dict[str, Any]


@dataclass
class Publisher:
    """A follower's slot. What it did before a crash is done again under the same message ids."""

    events: EventLog
    broker: Broker
    name: str = "publisher"
    now: Clock = utc_now
    _created: OrderedDict[UUID, RelayedCommand.Created] = field(default_factory=OrderedDict)

    def concerns(self, event: object) -> bool:
        return _is_of_command(event) or isinstance(event, ALARM_EVENTS)

    def apply(self, connection: object, batch: Sequence[Recorded]) -> None:
        """Publishes what these events cause, then records what was relayed; raises BrokerUnreachable."""
        outgoing = [message for recorded in batch for message in self._messages(recorded)]
        if not outgoing:
            return
        taken = self.broker.publish([message for message, _ in outgoing])
        sent = list(zip(outgoing, taken, strict=True))
        relayed = [command_id for (_, command_id), is_taken in sent if command_id and is_taken]
        if relayed:
            self._record_relayed(relayed, _folded(batch), _causes(batch))
        lost = [message for (message, command_id), is_taken in sent if not (command_id or is_taken)]
        if lost:
            self._mend(lost)

    def sent(self, recorded: Recorded, at: datetime) -> list[Message]:
        """What an event made us send that was recorded at a moment; sends nothing."""
        then = replace(self, now=lambda: at)
        return [message for message, _ in Publisher._messages(then, recorded)]

    def relay_again(self, command_id: UUID) -> None:
        """A command that no gateway took: its plant may listen by now."""
        command = self.events.load(RelayedCommand, command_id)
        if command.status == "ACCEPTED" and command.expires_at is not None and self.now() < command.expires_at:
            created = self._created_event(command_id)
            if self.broker.publish([_gateway_command(created, {})])[0]:
                self._record_one_relayed(command_id, {})

    def _mend(self, lost: Sequence[Message]) -> None:
        """A partner's queue that is gone while it trades is declared anew; one that trades no more is owed nothing.
        Raises BrokerUnreachable when a queue refuses even so: no message for a partner is passed over."""
        prefixes = {_prefix(message) for message in lost}
        trading = {prefix for prefix in prefixes if self._trades(prefix)}
        for prefix in trading:
            self.broker.declare(topology.of_prefix(prefix))
        taken = self.broker.publish([message for message in lost if _prefix(message) in trading])
        log.warning(
            "messages for partners had no queue",
            extra={"prefixes": sorted(prefixes), "messages": len(lost), "sent_after_all": sum(taken)},
        )
        if not all(taken):
            raise BrokerUnreachable("A partner's queue refuses its messages")

    def _trades(self, prefix: str) -> bool:
        held = self.events.find(QueuePrefix, QueuePrefix.create_id(prefix))
        if held is None or held.holder is None:
            return False
        config = self.events.load(TradingConfig, TradingConfig.create_id(held.holder))
        return config.is_enabled and config.queue_prefix == prefix

    def _record_relayed(
        self, command_ids: Sequence[UUID], folded: Mapping[UUID, RelayedCommand], causes: Mapping[UUID, Recorded]
    ) -> None:
        """`folded` are those whose whole stream this batch holds, as far as it goes; `causes` the events that had them
        relayed."""
        unknown = [command_id for command_id in command_ids if command_id not in folded]
        try:
            known = [folded[command_id] for command_id in command_ids if command_id in folded]
            self._save_relayed([*known, *self.events.find_all(RelayedCommand, unknown).values()], causes)
        except IntegrityError:
            # Plants answer while we record: of many commands some are always overtaken, of one not for long.
            for command_id in command_ids:
                self._record_one_relayed(command_id, causes)

    @again_if_overtaken
    def _record_one_relayed(self, command_id: UUID, causes: Mapping[UUID, Recorded]) -> None:
        self._save_relayed(list(self.events.find_all(RelayedCommand, [command_id]).values()), causes)

    def _save_relayed(self, commands: Sequence[RelayedCommand], causes: Mapping[UUID, Recorded]) -> None:
        who = Metadata(actor="publisher", source="follower")
        metadata_of = {}
        for command in commands:
            command.relay()
            cause = causes.get(command.id)
            metadata_of[command.id] = replace(
                who,
                correlation_id=command.correlation,
                causation_id=str(cause.position) if cause else None,
                traceparent=cause.metadata.get("traceparent") if cause else None,
            )
        with acting(who):
            self.events.save_all([command for command in commands if command.pending_events], metadata_of)

    def _messages(self, recorded: Recorded) -> list[tuple[Message, UUID | None]]:
        """The messages that an event causes; beside a gateway command stands the id of what it relays."""
        event = recorded.event
        headers = _headers(recorded)
        if isinstance(event, ALARM_EVENTS):
            return [(alarm_message(event, headers), None)]
        if not _is_of_command(event):
            return []
        if isinstance(event, RelayedCommand.Created):
            self._remember(event)
        if not isinstance(event, ANSWERED):
            return []
        created = self._created_event(event.originator_id)
        match event:
            case RelayedCommand.Accepted(expires_at=expires_at):
                ack = _ack(created, event, headers, "ACCEPTED")
                if expires_at <= self.now():  # the broker was away: no plant may act on what has expired
                    return [(ack, None)]
                return [(ack, None), (_gateway_command(created, headers), event.originator_id)]
            case RelayedCommand.Rejected(silent=False, reason=reason):
                return [(_ack(created, event, headers, "REJECTED", reason), None)]
            case RelayedCommand.Repeated():
                return [(self._repeated_ack(created, event, headers), None)]
            case RelayedCommand.Executed(executed_at=at, detail=detail):
                payload = {"executedAt": vcp.rfc3339(at), "detail": detail}
                return [(_execution(created, event, headers, "EXECUTED", payload), None)]
            case RelayedCommand.Failed(detail=detail):
                return [(_execution(created, event, headers, "FAILED", {"detail": detail}), None)]
            case RelayedCommand.Expired():
                return [(_execution(created, event, headers, "EXPIRED", {}), None)]
            case _:
                return []

    def _repeated_ack(self, created: RelayedCommand.Created, event: AggregateEvent, headers: dict[str, Any]) -> Message:
        command = self.events.load(RelayedCommand, event.originator_id)
        status = "REJECTED" if command.rejection else "ACCEPTED"
        return _ack(created, event, headers, status, command.rejection)

    def _remember(self, created: RelayedCommand.Created) -> None:
        self._created[created.originator_id] = created
        if len(self._created) > REMEMBERED:
            self._created.popitem(last=False)

    def _created_event(self, command_id: UUID) -> RelayedCommand.Created:
        """A command's first event: remembered from the log's recent past, else read."""
        remembered = self._created.get(command_id)
        if remembered is not None:
            return remembered
        first: Any = next(iter(self.events.events.get(command_id, lte=1)))
        assert isinstance(first, RelayedCommand.Created)
        return first


def _headers(recorded: Recorded) -> dict[str, Any]:
    headers = {"position": recorded.position, "request-id": recorded.metadata.get("request_id", "")}
    trace = recorded.metadata.get("traceparent")
    return headers if trace is None else {**headers, "traceparent": trace}


def _prefix(message: Message) -> str:
    return message.routing_key.partition(".")[0]


def _folded(batch: Sequence[Recorded]) -> dict[UUID, RelayedCommand]:
    """The commands that were received in this batch; what happened to them since makes a save of them fail."""
    commands: dict[UUID, RelayedCommand] = {}
    for recorded in batch:
        event: Any = recorded.event
        if isinstance(event, RelayedCommand.Created) or event.originator_id in commands:
            commands[event.originator_id] = event.mutate(commands.get(event.originator_id))
    return commands


def _causes(batch: Sequence[Recorded]) -> dict[UUID, Recorded]:
    return {each.event.originator_id: each for each in batch if isinstance(each.event, RelayedCommand.Accepted)}


def _is_of_command(event: object) -> TypeGuard[AggregateEvent]:
    return type(event).__qualname__.startswith("RelayedCommand.")


def _ack(
    created: RelayedCommand.Created,
    event: AggregateEvent,
    headers: dict[str, Any],
    status: str,
    reason: str | None = None,
) -> Message:
    payload = {"messageId": str(created.message_id), "status": status}
    if reason is not None:
        payload["reason"] = reason
    # The same id for each repeat of one acknowledgement: a partner recognises it.
    message_id = vcp.message_id(created.originator_id, f"ack:{status}")
    return _to_partner(created, event, "event.command.ack", message_id, payload, headers)


def _execution(
    created: RelayedCommand.Created,
    event: AggregateEvent,
    headers: dict[str, Any],
    status: str,
    more: dict[str, str | None],
) -> Message:
    given = {name: value for name, value in more.items() if value is not None}
    payload = {"messageId": str(created.message_id), "status": status, **given}
    message_id = vcp.message_id(created.originator_id, f"execution:{status}")
    return _to_partner(created, event, "event.execution", message_id, payload, headers)


def _to_partner(
    created: RelayedCommand.Created,
    event: AggregateEvent,
    key: str,
    message_id: UUID,
    payload: dict[str, Any],
    headers: dict[str, Any],
) -> Message:
    envelope = vcp.emit(message_id, created.site_id, payload, event.timestamp, created.correlation_id)
    return Message(VCP_EXCHANGE, f"{created.queue_prefix}.{key}", canonical(envelope), str(message_id), headers)


def _gateway_command(created: RelayedCommand.Created, headers: dict[str, Any]) -> Message:
    body: dict[str, Any] = {
        "commandId": str(created.originator_id),
        "type": created.type,
        "ts": vcp.rfc3339(created.timestamp),
        "payload": created.payload,
    }
    key = f"plant.{created.plant_id}.command"
    return Message(PLANT_EXCHANGE, key, canonical(body), str(created.originator_id), headers)
