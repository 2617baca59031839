"""What is wrong with the first event that is not as it was sealed: changed, missing, inserted or moved."""

from contextlib import closing
from typing import Any

from psycopg import Connection

from infra.audit.seals import LEAF_BYTES, Seal, leaf, moved, position_of, raw_events, seals_after

END = 2**63 - 1


def diagnose(connection: "Connection[Any]", seal: Seal) -> tuple[int, str] | None:
    """The position and what is wrong there; None if all events of the seal are right."""
    sealed = _leaves(seal)
    expected = seal.first_position
    bad: bytes | None = None
    with closing(raw_events(connection, expected - 1, seal.last_position)) as rows:
        for row in rows:
            if position_of(row) != expected or leaf(row) != sealed[expected]:
                bad = bytes(row)
                break
            expected += 1
    if bad is None and expected > seal.last_position:
        return None
    if bad is not None and position_of(bad) < expected:
        return expected - 1, "an event was inserted: there are two at this position"
    here = bad if bad is not None and position_of(bad) == expected else None
    return expected, _told(connection, sealed[expected], expected, here)


def _told(connection: "Connection[Any]", right: bytes, position: int, here: bytes | None) -> str:
    """By where the right event is now, and where the one that stands there belongs; looked for in the whole log."""
    now_at = _find(connection, right, position)
    belongs_at = None if here is None else _origin(connection, here)
    if here is None:
        return "the event is missing" if now_at is None else f"the event was moved to position {now_at}"
    if now_at is None and belongs_at is None:
        return "the event was changed"
    if now_at is None:
        return f"the event is missing, and the one of position {belongs_at} stands in its place"
    if belongs_at is None:
        return f"an event was inserted, and the one that belongs here moved to position {now_at}"
    return f"events were reordered: the one here belongs at {belongs_at}, and the right one is at {now_at}"


def _find(connection: "Connection[Any]", right: bytes, position: int) -> int | None:
    """Where the event that belongs at a position is now."""
    with closing(raw_events(connection, 0, END)) as rows:
        return next((position_of(row) for row in rows if leaf(moved(row, position)) == right), None)


def _origin(connection: "Connection[Any]", row: bytes) -> int | None:
    """The position at which a row was sealed."""
    number = 0
    while page := seals_after(connection, number, 1):
        number = page[0].number
        for position, right in _leaves(page[0]).items():
            if leaf(moved(row, position)) == right:
                return position
    return None


def _leaves(seal: Seal) -> dict[int, bytes]:
    places = range(0, len(seal.leaves), LEAF_BYTES)
    return {seal.first_position + n: seal.leaves[at : at + LEAF_BYTES] for n, at in enumerate(places)}
