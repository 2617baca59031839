"""The ports that the use cases need, each shaped like the need; adapters and their fakes pass one contract test."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from domain.day_plan import TimeBlock
from domain.topology import Topology


# --- the ESM partner's HTTP API (esm.md)
@dataclass(frozen=True)
class Partner:
    """Whom to call and as whom; `client_secret` never reaches a repr."""

    organization_id: UUID
    api_url: str
    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class EsmPlant:
    """One well-formed plant of the partner's list."""

    plant_id: str
    name: str
    description: str | None
    capacity_kwh: float | None
    fve_peak_power_kwp: float | None
    plant_with_load: bool | None
    config_enabled: bool | None
    esi_state: str | None


@dataclass(frozen=True)
class EsmPlantList:
    """A fetched list: the plants that could be read, one clean sentence for each that could not, and the ids of those
    whose id at least could be read: they are not gone."""

    plants: tuple[EsmPlant, ...]
    errors: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()


@dataclass(frozen=True)
class EsmPlantConfig:
    """A plant's configuration as the ESM has it now."""

    plant_id: str
    version: int
    config_enabled: bool
    esi_state: str | None
    time_configs: tuple[TimeBlock, ...]


@dataclass(frozen=True)
class EsmAnswer:
    """What the ESM says of a config change; `is_terminal` False means it will say more later, under `request_code`."""

    request_code: str | None
    result_code: str | None
    message: str | None
    is_error: bool
    is_terminal: bool


class EsmClient(Protocol):
    """Every method raises EsmUnreachable with a short, clean text: no partner body, token or secret in it."""

    def check_url(self, url: str) -> None:
        """Raises EsmUrlNotAllowed unless the URL is one that we would connect to (public http/https only)."""

    def plants(self, partner: Partner) -> EsmPlantList: ...

    def plant_config(self, partner: Partner, plant_id: str) -> EsmPlantConfig: ...

    def update_config(
        self, partner: Partner, plant_id: str, version: int, blocks: Sequence[TimeBlock], *, validate_only: bool
    ) -> EsmAnswer:
        """Sends once, never retried blindly."""

    def request_status(self, partner: Partner, request_code: str) -> EsmAnswer: ...


# --- the AMQP broker (amqp.md)
@dataclass(frozen=True)
class Message:
    """One message to publish, persistent; `headers` are AMQP headers, `message_id` the AMQP property."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Delivery:
    """One message that was delivered from `queue`; redelivered ones are told by `redelivered`.

    Not frozen, which would take twice the time: tens of thousands a second are made.
    """

    queue: str
    exchange: str
    routing_key: str
    body: bytes
    message_id: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    redelivered: bool = False


@dataclass(frozen=True)
class DeadLetter:
    """A delivery that cannot be read, and why: the broker moves it to `vcp.dead` with these as headers."""

    delivery: Delivery
    reason: str
    request_id: str


Handle = Callable[[Sequence[Delivery]], Sequence[DeadLetter]]
"""Takes a batch in order of delivery, returns once its effects are committed: then all of it is acked, after the dead
letters it returns are confirmed in `vcp.dead`. When it raises, nothing is acked and the batch comes again."""


class Consumption(Protocol):
    """A running consumer of some queues; `queues` may be set anew at any time, and `stop` returns when it has ended."""

    def consume(self, queues: set[str]) -> None: ...

    def stop(self) -> None: ...

    @property
    def connected(self) -> bool: ...


class Broker(Protocol):
    """Every method but `consumer` raises BrokerUnreachable when the broker can't be reached in time."""

    def declare(self, topology: Topology) -> None:
        """Idempotent: exchanges (durable, topic), queues and bindings."""

    def delete(self, queues: Sequence[str]) -> None:
        """Idempotent: deletes exactly these names."""

    def queue_exists(self, queue: str) -> bool: ...

    def waiting(self, queues: Sequence[str]) -> dict[str, int]:
        """How many messages are ready in each of these queues that there is."""

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        """Publishes all with confirms and `mandatory`; per message: was it routed to at least one queue, and refused by
        none. Raises unless every message was answered."""

    def consumer(
        self, queues: set[str], handle: Handle, *, batch: int = 200, linger: float = 0.01, name: str = "consumer"
    ) -> Consumption:
        """Starts consuming in threads of its own; batches by size or by `linger` seconds; reconnects by itself."""

    def close(self) -> None: ...


# --- secrets
Veil = Callable[[str], str]

VEILED = "veiled:"
"""How words begin that are veiled; to veil them again changes nothing."""


class SecretBox(Protocol):
    """Keeps secrets sealed, outside the event log, each under its organisation, field and version (from 1); and veils
    what is personal before it goes into the log, so that the log need not change for it to be forgotten."""

    def seal(self, organization_id: UUID, field: str, secret: str) -> int:
        """Stores a new version of the secret and returns its number."""

    def open(self, organization_id: UUID, field: str, version: int) -> str:
        """The secret; raises KeyError when there is none, or none any more."""

    def forget(self, organization_id: UUID, field: str, up_to: int) -> None:
        """Idempotent: these versions can't be opened ever again, and none of them is given anew."""

    def veil(self, organization_id: UUID) -> Veil:
        """Makes words unreadable without the organisation's key, the same words always the same way. Raises
        OrgMembershipRequired when the organisation was erased."""

    def unveil(self, organization_id: UUID) -> Veil:
        """Makes them readable again; what is not veiled, or was erased, stays as it is."""

    def erase(self, organization_id: UUID) -> None:
        """Idempotent: destroys the organisation's keys. None of its secrets opens, nothing of it is unveiled, and it
        gets no key, ever again."""


# --- the plant syncs of all processes
class SyncTurns(Protocol):
    """One sync at a time per organisation over all processes, and when each last went well.

    Operational state beside the event log: a sync that changes nothing records nothing."""

    def take(self, organization_id: UUID) -> AbstractContextManager[None]:
        """Waits a few seconds for the turn, then raises Unavailable."""

    def succeeded(self, organization_id: UUID) -> None:
        """Its next scheduled turn comes after the usual interval."""

    def failed(self, organization_id: UUID) -> None:
        """Its next scheduled turn comes later each time, up to 4 hours."""

    def last_success(self, organization_id: UUID) -> datetime | None: ...
