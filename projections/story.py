"""What one request or message caused, as a tree: the call or message, its events, what they sent, what came back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from psycopg import Connection

from application.ports import Message
from application.publisher import Recorded
from projections.audit_log import AuditEntry, AuditFilter, audit_page
from projections.loading import Decode

MOST = 1_000
"""Events of one story that are shown."""
DEPTH = 20

Sent = Callable[[Recorded, Any], list[Message]]
"""The messages that an event made us send, when it was recorded at a moment."""


@dataclass(frozen=True)
class Step:
    """Somebody's act, an event or a message; and what followed from it."""

    text: str
    position: int | None = None
    then: list["Step"] = field(default_factory=list)


Read = Callable[[AuditEntry], AuditEntry]


def story(connection: "Connection[Any]", decode: Decode, sent: Sent, id: str, read: Read) -> list[Step]:  # noqa: A002
    """Of a request, a correlation or a message; empty if the log has none of that id. `read` unveils an entry."""
    roots: list[Step] = []
    acts: dict[tuple[str, str | None], Step] = {}
    events: dict[int, Step] = {}
    last_of: dict[UUID, Step] = {}
    for entry in map(read, sorted(_entries(connection, id), key=lambda entry: entry.position)):
        cause = entry.causation_id or ""
        before = events.get(int(cause)) if cause.isdecimal() else None
        act = acts.get((entry.actor, entry.request_id))
        if act is None:
            act = acts[entry.actor, entry.request_id] = Step(_act(entry))
            (before.then if before else last_of[entry.stream_id].then if entry.stream_id in last_of else roots).append(
                act
            )
        told = Step(f"{entry.position} {entry.topic} {entry.stream_id} {_said(entry)}", entry.position)
        act.then.append(told)
        told.then.extend(Step(_message(message)) for message in sent(*_recorded(connection, decode, entry.position)))
        events[entry.position] = last_of[entry.stream_id] = told
    return roots


def _entries(connection: "Connection[Any]", id: str) -> Iterator[AuditEntry]:  # noqa: A002
    """With all that shares their correlation or their command."""
    asked: set[str] = set()
    seen: set[int] = set()
    asking = [id]
    while asking and len(asked) < DEPTH:
        one = asking.pop()
        asked.add(one)
        for entry in audit_page(connection, AuditFilter(id=one), MOST).data:
            if entry.position not in seen:
                seen.add(entry.position)
                yield entry
            of_command = str(entry.stream_id) if entry.topic.startswith("relayed-command:") else None
            asking += [each for each in (entry.correlation_id, of_command) if each and each not in {*asked, *asking}]


def _recorded(connection: "Connection[Any]", decode: Decode, position: int) -> tuple[Recorded, Any]:
    row = connection.execute(
        "SELECT topic, stream_id, version, state, metadata, recorded_at FROM events WHERE position = %s", [position]
    ).fetchone()
    assert row is not None
    return Recorded(position, decode(row[0])(*row[1:4]), row[4]), row[5]


def _act(entry: AuditEntry) -> str:
    by = f"{entry.source} {entry.actor}, request {entry.request_id}"
    return f"{by}, message {entry.causation_id}" if entry.causation_id and entry.source == "amqp" else by


def _said(entry: AuditEntry) -> str:
    said = msgspec.json.encode({name: value for name, value in entry.state.items() if name != "timestamp"}).decode()
    return said if len(said) <= 120 else f"{said[:119]}…"


def _message(message: Message) -> str:
    payload = msgspec.json.decode(message.body).get("payload", {})
    status = f" {payload['status']}" if isinstance(payload, dict) and "status" in payload else ""
    return f"→ {message.routing_key}{status}, message {message.message_id}"
