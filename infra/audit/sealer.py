"""Seals what is new in the log each second. Nothing of it is on the path of an append.

Of all processes one is active, by a session advisory lock. A seal is one row, written in one transaction with the
slot's position, so a crash at any point leaves no gap and no second seal of the same events.
"""

import logging
import random
import threading
import time
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import Connection

from infra.audit.sealing_keys import SealingKeys, sealing_keys, unendorsed
from infra.audit.seals import GENESIS, LEAF_BYTES, Seal, add, last_seal, leaf, position_of, raw_events
from infra.operator_keys import WeakKey
from projections.follower import LOCK_CLASS, POLL_S, STAND_BY_S
from projections.slots import Connect

log = logging.getLogger(__name__)

NAME = "sealer"
EVENTS = 4096
"""In one seal at most."""
ANCHOR_EVERY_S = 600.0


class Refused(Exception):
    """What is there is not what was sealed or seen before: the sealer won't vouch for it"""

    def __init__(self, position: int, message: str):
        super().__init__(f"{message}: run `wattledger audit verify`")
        self.position = position


class Sealer:
    """Where it refuses to go on its slot is parked, loudly, and it looks again each second."""

    def __init__(self, connect: Connect, keys: SealingKeys, *, events: int = EVENTS):
        self.active = threading.Event()
        self._connect = connect
        self._keys = keys
        self._events = events
        self._last: Seal | None = None
        self._parked: str | None = ""  # until it is known, maybe by a process before
        self._anchored_at = -ANCHOR_EVERY_S

    def run(self, stop: threading.Event) -> None:
        """Until `stop`: through lost connections and take-overs."""
        while not stop.is_set():
            try:
                with self._connect() as connection:
                    self._run(connection, stop)
            except psycopg.OperationalError as error:
                log.warning("sealer interrupted: %s", error)
                stop.wait(random.uniform(POLL_S / 2, POLL_S))
            finally:
                self.active.clear()

    def catch_up(self) -> None:
        """Seals up to the log's end now, unless an active sealer is at it already."""
        with self._connect() as connection:
            if self._take_lock(connection):
                while self.step(connection):
                    pass

    def step(self, connection: "Connection[Any]") -> int:
        """Makes one seal; how many events it has, 0 if there are none. Raises Refused, WeakKey."""
        with connection.transaction():
            end, slot = _standing(connection)
            last = self._look_back(connection, end, slot)
            after = last.last_position if last else 0
            upto = min(end, after + self._events)
            if upto <= after:
                return 0
            seal = self._seal(connection, last, _leaves(connection, after, upto))
            add(connection, seal)
            connection.execute(
                "INSERT INTO slots (name, position) VALUES (%s, %s) ON CONFLICT (name)"
                " DO UPDATE SET position = excluded.position, updated_at = now()",
                (NAME, upto),
            )
        self._last = seal
        self._announce(seal)
        return upto - after

    def _run(self, connection: "Connection[Any]", stop: threading.Event) -> None:
        while not self._take_lock(connection):
            if stop.wait(STAND_BY_S):
                return
        self.active.set()
        log.info("sealer active")
        while not stop.is_set():
            try:
                sealed = self.step(connection)
            except (Refused, WeakKey) as error:
                sealed = 0
                self._park(connection, error)
            else:
                self._go_on(connection)
            if sealed < self._events:
                stop.wait(POLL_S)

    def _take_lock(self, connection: "Connection[Any]") -> bool:
        row = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (LOCK_CLASS, NAME)).fetchone()
        return bool(row and row[0])

    def _look_back(self, connection: "Connection[Any]", end: int, slot: int) -> Seal | None:
        """The last seal, once we are sure of it and that nothing before it was taken away."""
        row = connection.execute("SELECT number, digest FROM seals ORDER BY number DESC LIMIT 1").fetchone()
        if self._last is None or row != (self._last.number, self._last.digest):
            last = last_seal(connection)
            self._be_sure(connection, last)
            self._last = last
        sealed = self._last.last_position if self._last else 0
        if slot > sealed:
            raise Refused(sealed + 1, f"The log was sealed to position {slot}, but the seals end at {sealed}")
        if end < sealed:
            raise Refused(end + 1, f"The log ends at {end}, though it was sealed to position {sealed}")
        return self._last

    def _be_sure(self, connection: "Connection[Any]", last: Seal | None) -> None:
        """It was signed by a key of ours, and what we have seen ourselves is below it still."""
        seen = self._last
        if (
            seen is not None
            and not connection.execute(
                "SELECT 1 FROM seals WHERE number = %s AND digest = %s", (seen.number, seen.digest)
            ).fetchone()
        ):
            raise Refused(seen.first_position, f"Seal {seen.number} is not there any more as it was")
        if last is None:
            return
        known = sealing_keys(connection)
        key = next((key for key in known if key.fingerprint == last.key), None)
        if (
            key is None
            or unendorsed(known)
            or last.compute_digest() != last.digest
            or not key.signed(last.signature, last.digest)
        ):
            raise Refused(last.first_position, f"Seal {last.number} is not as it was signed")

    def _seal(self, connection: "Connection[Any]", last: Seal | None, leaves: bytes) -> Seal:
        signer = self._keys.signer(connection)
        first = last.last_position + 1 if last else 1
        seal = Seal(
            number=last.number + 1 if last else 1,
            first_position=first,
            last_position=first + len(leaves) // LEAF_BYTES - 1,
            previous=last.digest if last else GENESIS,
            leaves=leaves,
            sealed_at=time.time_ns() // 1000,
            key=signer.key.fingerprint,
        )
        digest = seal.compute_digest()
        return replace(seal, digest=digest, signature=signer.sign(digest))

    def _announce(self, seal: Seal) -> None:
        """Logs are kept elsewhere: whoever has this line finds out that seals before it were replaced or taken away."""
        if time.monotonic() - self._anchored_at >= ANCHOR_EVERY_S:
            self._anchored_at = time.monotonic()
            log.info("log sealed", extra={"anchor": seal.name, "position": seal.last_position})

    def _park(self, connection: "Connection[Any]", error: Refused | WeakKey) -> None:
        if self._parked != str(error):
            self._parked = str(error)
            log.error("sealer parked", extra={"error": self._parked})
            connection.execute(
                "INSERT INTO slots (name, parked_at, error) VALUES (%(name)s, %(at)s, %(error)s) ON CONFLICT (name)"
                " DO UPDATE SET parked_at = excluded.parked_at, error = excluded.error, updated_at = now()",
                {"name": NAME, "at": getattr(error, "position", 0), "error": self._parked},
            )

    def _go_on(self, connection: "Connection[Any]") -> None:
        if self._parked is not None:
            self._parked = None
            connection.execute("UPDATE slots SET parked_at = NULL, error = NULL WHERE name = %s", [NAME])


def _standing(connection: "Connection[Any]") -> tuple[int, int]:
    """Where the log ends, and how far it was sealed once."""
    row = connection.execute(
        "SELECT coalesce((SELECT max(position) FROM events), 0),"
        " coalesce((SELECT position FROM slots WHERE name = %s), 0)",
        [NAME],
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _leaves(connection: "Connection[Any]", after: int, upto: int) -> bytes:
    """Of the events there, none of which may be missing."""
    leaves = bytearray()
    with closing(raw_events(connection, after, upto)) as rows:
        for position, row in enumerate(rows, after + 1):
            if position_of(row) != position:
                break
            leaves += leaf(row)
    if len(leaves) != LEAF_BYTES * (upto - after):
        missing = after + len(leaves) // LEAF_BYTES + 1
        raise Refused(missing, f"The event at position {missing} is missing")
    return bytes(leaves)
