"""Who acts, why, when and through which door: the metadata that every event of the current task is stored with."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

Source = Literal["http", "amqp", "scheduler", "cli", "follower"]

Clock = Callable[[], datetime]

_TRACEPARENT = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class Metadata:
    """Stored beside each event. `actor` is `user:{veiled uuid}`, `key:{uuid}`, `partner:{queue prefix}`,
    `plant:{uuid}`, `publisher`, `scheduler` or `cli:{operating system's user}`. A whole story shares its
    `correlation_id`: a partner's own or its message's, else that of the request that began it. `causation_id` is a
    message's id, or the position of the event that led to this one; null where a story begins. `traceparent` is the
    W3C trace context it came with."""

    actor: str
    source: Source
    request_id: str = field(default_factory=lambda: str(uuid4()))
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None

    def __post_init__(self) -> None:
        if self.correlation_id is None:
            object.__setattr__(self, "correlation_id", self.request_id)


def with_user(actor: str, change: Callable[[str], str]) -> str:
    """An actor whose user's id is veiled or unveiled; all others are no people of the organisation's."""
    kind, _, user_id = actor.partition(":")
    return f"user:{change(user_id)}" if kind == "user" else actor


@dataclass(frozen=True)
class IdempotencyKey:
    """What a caller named a request, so that it may repeat it; `request_hash` is of all that it asked."""

    caller: str
    key: str
    request_hash: bytes


@dataclass
class Task:
    """One request, message batch or job: its metadata, and the position its last save reached (0 if none).

    Its idempotency key is recorded with its first events, in their transaction."""

    metadata: Metadata
    idempotency: IdempotencyKey | None = None
    position: int = 0


current_request: ContextVar[str | None] = ContextVar("current_request", default=None)
"""The id of the request at hand, from its first moment: that of a task is known only once somebody acts."""

current_task: ContextVar[Task | None] = ContextVar("current_task", default=None)


@contextmanager
def acting(metadata: Metadata, idempotency: IdempotencyKey | None = None) -> Iterator[Task]:
    """Everything saved inside carries this metadata. Threads that are started inside don't inherit it."""
    task = Task(metadata, idempotency)
    token = current_task.set(task)
    try:
        yield task
    finally:
        current_task.reset(token)


def metadata() -> Metadata:
    """Of the current task; an action outside any task is a programming error."""
    task = current_task.get()
    if task is None:
        raise LookupError("nobody acts: save inside `with acting(Metadata(…))`")
    return task.metadata


def traceparent(given: object) -> str | None:
    """The header of this name, if it is one."""
    return given if isinstance(given, str) and _TRACEPARENT.fullmatch(given) else None


def utc_now() -> datetime:
    return datetime.now(UTC)
