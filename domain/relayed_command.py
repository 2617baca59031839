"""A partner's command on its way to a plant: a state machine that never goes back (amqp.md, Life of a command)."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid5

from eventsourcing.domain import Aggregate, event

CommandType = Literal["SITE_SETPOINT", "DEVICE_COMMAND", "EMERGENCY", "MODE_CHANGE", "SCHEDULE", "CONFIG_REQUEST"]
Status = Literal["RECEIVED", "REJECTED", "ACCEPTED", "RELAYED", "EXECUTED", "FAILED", "EXPIRED"]
AckStatus = Literal["ACK", "NACK"]
RejectionReason = Literal[
    "UNSUPPORTED_VERSION",
    "INVALID_PAYLOAD",
    "UNKNOWN_SITE",
    "SIGNATURE_MISSING",
    "SIGNATURE_INVALID",
    "STALE_MESSAGE",
    "DUPLICATE_MESSAGE_ID",
    "TRADING_DISABLED",
    "EXPIRED",
]
Result = Literal["EXECUTED", "FAILED"]

OPEN: frozenset[Status] = frozenset({"ACCEPTED", "RELAYED"})


class RelayedCommand(Aggregate):
    """Its id comes from (organisation, messageId), so that the event store itself refuses a second one."""

    TOPIC = "relayed-command"

    class Created(Aggregate.Created):
        """Received; `digest` is SHA-256 of the canonical envelope, `type` the routing key after the prefix."""

        TOPIC = "relayed-command:created"
        organization_id: UUID
        queue_prefix: str
        plant_id: UUID | None
        message_id: UUID
        correlation_id: str | None
        command_type: CommandType
        type: str
        routing_key: str
        site_id: str
        sent_at: datetime | None
        payload: dict[str, Any]
        digest: str
        signed: bool

    class Rejected(Aggregate.Event):
        """`silent`: the sender is not authenticated and learns nothing."""

        TOPIC = "relayed-command:rejected"
        reason: RejectionReason
        detail: str | None
        silent: bool

    class Accepted(Aggregate.Event):
        TOPIC = "relayed-command:accepted"
        expires_at: datetime

    class Repeated(Aggregate.Event):
        """The same message came again: its acknowledgement is sent again, nothing else happens."""

        TOPIC = "relayed-command:repeated"

    class Overtook(Aggregate.Event):
        """An emergency came by the queue of its own: its copy in the organisation's queue is no repeat."""

        TOPIC = "relayed-command:overtook"

    class Relayed(Aggregate.Event):
        """The plant gateway's exchange confirmed it."""

        TOPIC = "relayed-command:relayed"

    class Executed(Aggregate.Event):
        TOPIC = "relayed-command:executed"
        executed_at: datetime
        detail: str | None

    class Failed(Aggregate.Event):
        TOPIC = "relayed-command:failed"
        failed_at: datetime
        detail: str | None

    class Expired(Aggregate.Event):
        TOPIC = "relayed-command:expired"

    class ReportedLate(Aggregate.Event):
        """The plant's result came after the command had ended: it changes no status."""

        TOPIC = "relayed-command:reported-late"
        result: Result
        reported_at: datetime
        detail: str | None

    @event(Created)
    def __init__(
        self,
        organization_id: UUID,
        queue_prefix: str,
        plant_id: UUID | None,
        message_id: UUID,
        correlation_id: str | None,
        command_type: CommandType,
        type: str,  # noqa: A002 - the partner's word
        routing_key: str,
        site_id: str,
        sent_at: datetime | None,
        payload: dict[str, Any],
        digest: str,
        signed: bool,
    ):
        self.organization_id = organization_id
        self.queue_prefix = queue_prefix
        self.plant_id = plant_id
        self.message_id = message_id
        self.correlation_id = correlation_id
        self.command_type = command_type
        self.type = type
        self.payload = payload
        self.digest = digest
        self.status: Status = "RECEIVED"
        self.rejection: RejectionReason | None = None
        self.silent = False
        self.expires_at: datetime | None = None
        self.reported_late = False
        self.overtook = False

    @staticmethod
    def create_id(organization_id: UUID, message_id: UUID) -> UUID:
        return uuid5(organization_id, f"command:{message_id}")

    @staticmethod
    def create_impostor_id(organization_id: UUID, message_id: UUID, digest: str) -> UUID:
        """Of another body under a message id that is taken: its refusal has a stream of its own."""
        return uuid5(organization_id, f"command:{message_id}:{digest}")

    @property
    def correlation(self) -> str:
        """What the partner ties its story together by."""
        return self.correlation_id or str(self.message_id)

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    def accept(self, expires_at: datetime) -> None:
        if self.status == "RECEIVED":
            self._accepted(expires_at)

    def reject(self, reason: RejectionReason, detail: str | None = None, *, silent: bool = False) -> None:
        if self.status == "RECEIVED":
            self._rejected(reason, detail, silent)

    def repeat(self) -> None:
        """The same message was delivered again."""
        if not self.silent:
            self._repeated()

    def overtake(self) -> None:
        """It was delivered by the queue of emergencies: once for each time that it was sent."""
        if self.overtook:
            self.repeat()
        else:
            self._overtook()

    def relay(self) -> None:
        if self.status == "ACCEPTED":
            self._relayed()

    def execute(self, executed_at: datetime, detail: str | None = None) -> None:
        if self.is_open:
            self._executed(executed_at, detail)
        else:
            self._report_late("EXECUTED", executed_at, detail)

    def fail(self, failed_at: datetime, detail: str | None = None) -> None:
        if self.is_open:
            self._failed(failed_at, detail)
        else:
            self._report_late("FAILED", failed_at, detail)

    def expire(self, now: datetime) -> None:
        if self.is_open and self.expires_at is not None and now >= self.expires_at:
            self._expired()

    def _report_late(self, result: Result, reported_at: datetime, detail: str | None) -> None:
        if self.status == "EXPIRED" and not self.reported_late:
            self._reported_late(result, reported_at, detail)

    @event(Rejected)
    def _rejected(self, reason: RejectionReason, detail: str | None, silent: bool) -> None:
        self.status = "REJECTED"
        self.rejection = reason
        self.silent = silent

    @event(Accepted)
    def _accepted(self, expires_at: datetime) -> None:
        self.status = "ACCEPTED"
        self.expires_at = expires_at

    @event(Repeated)
    def _repeated(self) -> None:
        pass

    @event(Overtook)
    def _overtook(self) -> None:
        self.overtook = True

    @event(Relayed)
    def _relayed(self) -> None:
        self.status = "RELAYED"

    @event(Executed)
    def _executed(self, executed_at: datetime, detail: str | None) -> None:
        self.status = "EXECUTED"

    @event(Failed)
    def _failed(self, failed_at: datetime, detail: str | None) -> None:
        self.status = "FAILED"

    @event(Expired)
    def _expired(self) -> None:
        self.status = "EXPIRED"

    @event(ReportedLate)
    def _reported_late(self, result: Result, reported_at: datetime, detail: str | None) -> None:
        self.reported_late = True
