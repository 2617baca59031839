"""Checks every seal and every event under it, in short pages while appends go on, and names the first bad position."""

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any, Literal

import psycopg
from psycopg import Connection

from infra.audit.diagnosis import diagnose
from infra.audit.sealing_keys import SealingKey, sealing_keys, unendorsed
from infra.audit.seals import GENESIS, LEAF_BYTES, Seal, last_seal, leaf, raw_events, seals_after
from projections.rebuild import Progress

SEALS = 32
"""Checked at once: 131 072 events at most."""
ANCHOR = re.compile(r"\b([0-9a-f]{64})@([0-9]{1,18})\b")
FINGERPRINT = re.compile(r"\b[0-9a-f]{64}\b")

Trust = Literal["pinned", "operator"]


class Tampered(Exception):
    """The log is not what was sealed. `position` is the first bad one, None where only keys are wrong"""

    def __init__(self, position: int | None, what: str, seal: int | None = None):
        super().__init__(what)
        self.position = position
        self.what = what
        self.seal = seal


@dataclass(frozen=True)
class Verified:
    """What was found. `trust` says why the keys are believed, if any, `anchor` is the last seal, to
    be kept by the auditor; `unsealed` events since `unsealed_since` are not proven by anything yet."""

    intact: bool
    events: int
    seals: int
    trust: Trust | None
    anchor: str | None
    unsealed: int
    unsealed_since: datetime | None
    position: int | None = None
    seal: int | None = None
    what: str | None = None


@dataclass(frozen=True)
class Trusted:
    """What the auditor brings along. `pinned` is a fingerprint, `opens` says whether our operator keys made the newest
    key, `anchors` are earlier seals by number."""

    pinned: bytes | None
    opens: bool
    anchors: dict[int, bytes]


def verify(
    connection: "Connection[Any]",
    trusted: Trusted,
    *,
    from_seal: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Verified:
    """Never raises Tampered: it is in the answer. Raises ValueError when there is no seal `from_seal`."""
    work = _Verification(connection, trusted, progress)
    try:
        work.run(from_seal)
    except Tampered as found:
        return work.answer(found)
    return work.answer()


class _Verification:
    def __init__(self, connection: "Connection[Any]", trusted: Trusted, progress: Callable[[Progress], None]):
        self._connection = connection
        self._trusted = trusted
        self._progress = progress
        self._began = monotonic()
        self._events = self._seals = self._unsealed = 0
        self._unsealed_since: datetime | None = None
        self._trust: Trust | None = None
        self._known: list[SealingKey] = []
        self._last: Seal | None = None

    def run(self, from_seal: int) -> None:
        slots = self._slots()
        self._check_head()
        self._read_keys()
        end = last_seal(self._connection)
        self._last = self._before(from_seal)
        begin = self._last.last_position if self._last else 0
        while page := seals_after(self._connection, self._last.number if self._last else 0, SEALS):
            self._check(page)
            self._tell(begin, end)
        self._believe()
        self._check_anchors()
        self._check_tail(slots)

    def answer(self, found: Tampered | None = None) -> Verified:
        return Verified(
            intact=found is None,
            events=self._events,
            seals=self._seals,
            trust=self._trust,
            anchor=self._last.name if self._last and found is None else None,
            unsealed=self._unsealed,
            unsealed_since=self._unsealed_since,
            position=found.position if found else None,
            seal=found.seal if found else None,
            what=found.what if found else None,
        )

    def _read_keys(self) -> None:
        try:
            self._known = sealing_keys(self._connection)
        except psycopg.DataError:
            raise Tampered(None, "the list of sealing keys can't be read") from None
        bad = unendorsed(self._known)
        if bad:
            raise Tampered(None, f"sealing key {bad.number} is not endorsed by the one before it")
        if self._trusted.pinned is not None:
            self._trust = "pinned"
            if not any(key.fingerprint == self._trusted.pinned for key in self._known):
                raise Tampered(None, "the pinned key is not among the sealing keys")
        elif self._known:
            self._trust = "operator"
            if not self._trusted.opens:
                what = "the newest sealing key was not made with our secret keys, and no public key was named to go by"
                raise Tampered(None, what)

    def _believe(self) -> None:
        """A key that is believed vouches for those after it by endorsing them, and for seals before by the chain."""
        if self._last is None or self._trust is None:
            return
        # The newest was sealed together with the public key before it, which may be the last that has signed.
        believed = [
            key.number
            for key in (self._known if self._trust == "pinned" else self._known[-2:])
            if self._trusted.pinned in {None, key.fingerprint}
        ]
        if self._number_of(self._last.key) < min(believed):
            what = "the last seal is not by the pinned key or one that it endorsed"
            raise Tampered(self._last.first_position, what, self._last.number)

    def _number_of(self, fingerprint: bytes) -> int:
        return next((key.number for key in self._known if key.fingerprint == fingerprint), 0)

    def _check_head(self) -> None:
        row = self._connection.execute(
            "SELECT position FROM events WHERE position < 1 OR position IS NULL ORDER BY position LIMIT 1"
        ).fetchone()
        if row is not None:
            raise Tampered(row[0], "an event was inserted outside the log's positions")

    def _before(self, from_seal: int) -> Seal | None:
        if from_seal <= 1:
            return None
        found = seals_after(self._connection, from_seal - 2, 1)
        if not found or found[0].number != from_seal - 1:
            raise ValueError(f"There is no seal {from_seal - 1} to begin after")
        return found[0]

    def _check(self, page: Sequence[Seal]) -> None:
        """The seals first, then the events of those that are good: the earlier position is the one to name."""
        good: list[Seal] = []
        bad: Tampered | None = None
        before = self._last
        for seal in page:
            what = self._what_is_wrong(seal, before)
            if what is not None:
                bad = Tampered(before.last_position + 1 if before else 1, what, seal.number)
                break
            good.append(seal)
            before = seal
        if good:
            self._check_events(good)
            self._last = before
        if bad is not None:
            raise bad

    def _what_is_wrong(self, seal: Seal, before: Seal | None) -> str | None:
        number = before.number + 1 if before else 1
        first = before.last_position + 1 if before else 1
        key = next((key for key in self._known if key.fingerprint == seal.key), None)
        signer = self._number_of(before.key) if before else 0
        try:
            digest = seal.compute_digest()
        except (TypeError, struct.error):
            return f"seal {number} lacks a value"
        checks = (
            (seal.number == number, f"seal {number} is missing"),
            (seal.first_position == first, f"seal {number} begins at {seal.first_position}, not at {first}"),
            (len(seal.leaves) == LEAF_BYTES * (seal.last_position - first + 1), f"seal {number} has another length"),
            (seal.leaves != b"", f"seal {number} is empty"),
            (seal.previous == (before.digest if before else GENESIS), f"seal {number} does not follow the one before"),
            (digest == seal.digest, f"seal {number} was changed: its digest is another"),
            (key is not None and key.number >= signer, f"seal {number} is by a key that is not the log's"),
            (key is not None and key.signed(seal.signature, digest), f"the signature of seal {number} is wrong"),
            (self._trusted.anchors.get(number, digest) == digest, f"seal {number} is not the one of the anchor"),
        )
        return next((what for holds, what in checks if not holds), None)

    def _check_events(self, seals: Sequence[Seal]) -> None:
        sealed = b"".join([seal.leaves for seal in seals])
        first, last = seals[0].first_position, seals[-1].last_position
        stored = b"".join([leaf(row) for row in raw_events(self._connection, first - 1, last)])
        if stored == sealed:
            self._events += len(sealed) // LEAF_BYTES
            self._seals += len(seals)
            return
        for seal in seals:
            found = diagnose(self._connection, seal)
            if found is not None:
                raise Tampered(*found, seal.number)
            self._events += len(seal.leaves) // LEAF_BYTES
            self._seals += 1
        # Someone changes rows while we look; the next look tells.
        raise Tampered(first, "events changed while they were read", seals[0].number)

    def _check_anchors(self) -> None:
        last = self._last.number if self._last else 0
        gone = [number for number in self._trusted.anchors if number > last]
        if gone:
            position = self._last.last_position + 1 if self._last else 1
            raise Tampered(position, f"seal {min(gone)} of the anchor is missing: the seals end at {last}", min(gone))

    def _check_tail(self, slots: dict[str, int]) -> None:
        """Of what is not sealed yet, only that nothing is missing."""
        after = self._last.last_position if self._last else 0
        sealed = slots.get("sealer", 0)
        if sealed > after:
            raise Tampered(after + 1, f"the log was sealed to position {sealed}, but the seals end at {after}")
        row = self._connection.execute(
            "SELECT count(*), coalesce(max(position), %(after)s),"
            " min(recorded_at) FILTER (WHERE recorded_at BETWEEN '2000-01-01' AND '9999-12-31')"
            " FROM events WHERE position > %(after)s",
            {"after": after},
        ).fetchone()
        assert row is not None
        self._unsealed, end, self._unsealed_since = row
        furthest = max(slots.values(), default=0)
        if self._unsealed != end - after:
            raise Tampered(self._gap(after), "an event that was not sealed yet is missing")
        if furthest > end:
            name = max(slots, key=lambda name: slots[name])
            raise Tampered(end + 1, f"the log ends at {end}, but the slot {name} has read to {furthest}")

    def _gap(self, after: int) -> int:
        row = self._connection.execute(
            "SELECT min(n) FROM (SELECT position, lag(position, 1, %s) OVER (ORDER BY position) + 1 AS n FROM events"
            " WHERE position > %s) e WHERE position <> n",
            (after, after),
        ).fetchone()
        return int(row[0]) if row and row[0] is not None else after + 1

    def _slots(self) -> dict[str, int]:
        """Before all else: the log only grows after this."""
        return dict(self._connection.execute("SELECT name, position FROM slots").fetchall())

    def _tell(self, begin: int, end: Seal | None) -> None:
        if end is None or self._last is None:
            return
        rate = self._events / max(monotonic() - self._began, 1e-9)
        total = max(end.last_position, self._last.last_position) - begin
        self._progress(Progress("verify", self._events, total, rate, (total - self._events) / max(rate, 1e-9)))
