"""New samples as they are recorded, read once for everybody who watches; each has a place to go on from, exactly.

A sample's place is the transaction that inserted it and its time. Rows of transactions below the snapshot's `xmin` are
final: all of those have ended. So whoever has seen everything up to there misses nothing and sees nothing twice, in
whatever order transactions commit. A row is never updated, so its system column `xmin` says who inserted it, with no
column and no index that ingest would pay for. Late samples are read when they come, up to LATE; older ones are history.
"""

import asyncio
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from psycopg.sql import SQL
from psycopg_pool import PoolTimeout, TooManyRequests

from projections.exports import Ask
from projections.measurements import EPOCH
from projections.samples import FIELDS, each
from projections.telemetry import TelemetryRow

log = logging.getLogger(__name__)

EVERY_S = 1.0
# Of the time, so that many plants make the samples come later rather than the database busy.
BUSY_SHARE = 0.1
LATE = timedelta(minutes=15)
# No sample is timed so far ahead of the moment it is recorded at, and no batch takes so long.
AHEAD, BATCH = timedelta(minutes=10), timedelta(minutes=5)
RESUMABLE = timedelta(hours=24)
MICROSECOND = timedelta(microseconds=1)

RECORDED = SQL("""
WITH now AS MATERIALIZED (
  SELECT pg_snapshot_xmin(snapshot)::text::bigint AS horizon, pg_snapshot_xmax(snapshot)::text::bigint AS next
  FROM pg_current_snapshot() snapshot
)
SELECT now.horizon, clock_timestamp() AT TIME ZONE 'UTC', plant_id, transaction, time AT TIME ZONE 'UTC', {fields}
FROM now LEFT JOIN LATERAL (
  SELECT plant_id, transaction, time, {fields}
  FROM telemetry, LATERAL (
    -- xmin is the lower half of the transaction's number, of which `next` has the upper one.
    SELECT now.next - (now.next - telemetry.xmin::text::bigint) %% (1::bigint << 32) AS transaction
  ) inserted
  WHERE plant_id = ANY(%(plant_ids)s) AND time >= %(earliest)s AND time >= received_at - %(late)s
    AND transaction < now.horizon AND (transaction, time) > (%(transaction)s, %(time)s)
  ORDER BY transaction, time LIMIT %(limit)s) fresh ON true
ORDER BY transaction, time
""").format(fields=each("@"))


class Place(NamedTuple):
    """In the order in which the samples of a plant were recorded; as text the id of an event."""

    transaction: int
    time: datetime

    def __str__(self) -> str:
        return f"{self.transaction}-{(self.time - EPOCH) // MICROSECOND}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        if not re.fullmatch(r"\d{1,18}-\d{1,16}", text, re.ASCII):
            return None
        transaction, microseconds = map(int, text.split("-"))
        return cls(transaction, EPOCH + microseconds * MICROSECOND)

    @property
    def earliest(self) -> datetime:
        """No sample behind this place is older."""
        return self.time - AHEAD - LATE - BATCH

    def leads_to(self, now: "Place") -> bool:
        """Whether one can go on from here: not from a day ago, nor from a database that went another way."""
        return self.transaction <= now.transaction and now.time - RESUMABLE <= self.time <= now.time


class Recorded(NamedTuple):
    """A sample and its place."""

    place: Place
    row: TelemetryRow


async def recorded(
    connection: "psycopg.AsyncConnection[Any]", plant_ids: Sequence[UUID], after: Place | None, limit: int | None = None
) -> tuple[list[Recorded], Place]:
    """What was recorded of these plants after the place, in order, and the place up to which that is all; without a
    place only this one."""
    asked = {
        "plant_ids": list(plant_ids) if after else [],
        "transaction": after.transaction if after else 0,
        "time": after.time if after else EPOCH,
        "earliest": after.earliest if after else EPOCH,
        "late": LATE,
        "limit": limit,
    }
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(RECORDED, asked, prepare=False)  # so that only the partitions of these days are opened
        rows = await cursor.fetchall()
    horizon, now = rows[0][:2]
    found = [
        Recorded(
            Place(transaction, time.replace(tzinfo=UTC)),
            TelemetryRow(plant_id=plant_id, time=time.replace(tzinfo=UTC), **dict(zip(FIELDS, values, strict=True))),  # type: ignore[typeddict-item]
        )
        for _, _, plant_id, transaction, time, *values in rows
        if plant_id is not None
    ]
    return found, Place(horizon - 1, now.replace(tzinfo=UTC) + AHEAD)


@dataclass(eq=False)
class Watch:
    """One who watches a plant. `reached` is the place up to which everything is in `fresh`, None before the start;
    when `lost`, too much waited to be taken, or the watching was ended."""

    plant_id: UUID
    buffer: int
    reached: Place | None = None
    fresh: list[Recorded] = field(default_factory=list)
    lost: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, samples: Sequence[Recorded], reached: Place) -> None:
        self.fresh.extend(samples)
        self.reached = reached
        if len(self.fresh) > self.buffer:
            self.lose()
        elif samples:
            self.moved.set()

    def lose(self) -> None:
        self.fresh, self.lost = [], True
        self.moved.set()

    def take(self) -> list[Recorded]:
        taken, self.fresh = self.fresh, []
        self.moved.clear()
        return taken


class Live:
    """Reads for all watches at once, on one connection, and only while somebody watches. Of one event loop."""

    def __init__(self, ask: Ask, every_s: float = EVERY_S):
        self._ask = ask
        self._every_s = every_s
        self._watches: set[Watch] = set()
        self._place: Place | None = None
        self._joined = asyncio.Event()
        self._ended = False

    @contextmanager
    def watch(self, plant_id: UUID, buffer: int) -> Iterator[Watch]:
        """From the next reading on: `moved` is set when it has begun."""
        watch = Watch(plant_id, buffer)
        self._watches.add(watch)
        self._joined.set()
        if self._ended:
            watch.lose()
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def end(self) -> None:
        """All watches are lost, now and from now on."""
        self._ended = True
        for watch in self._watches:
            watch.lose()

    async def run(self) -> None:
        """Until cancelled. What was missed while the database was away comes when it is back."""
        while True:
            began = time.monotonic()
            if self._watches:
                try:
                    await self._read()
                except (psycopg.Error, PoolTimeout, TooManyRequests) as error:  # it must not end for good
                    log.warning("no word of new samples", extra={"error": str(error)})
                    await asyncio.sleep(self._every_s)
            else:
                self._place = None
            took = time.monotonic() - began
            await self._rest(max(self._every_s - took, took / BUSY_SHARE) if self._watches else None)

    async def _read(self) -> None:
        watches = list(self._watches)
        place = self._place
        plant_ids = {watch.plant_id for watch in watches}
        found, now = await self._ask(lambda connection: recorded(connection, list(plant_ids), place))
        if place is not None and now.transaction < place.transaction:
            # The database was restored to an earlier state: what a place means there, nobody knows.
            self._place = None
            for watch in watches:
                watch.lose()
            return
        # While an old transaction holds it back, its time stays, too: what waits behind it may have come long ago.
        self._place = now if place is None or now.transaction > place.transaction else place
        of_plant: dict[UUID, list[Recorded]] = {plant_id: [] for plant_id in plant_ids}
        for each_found in found:
            of_plant[each_found.row["plant_id"]].append(each_found)
        for watch in watches:
            begins = watch.reached is None
            watch.offer(of_plant[watch.plant_id], self._place)
            if begins:
                watch.moved.set()

    async def _rest(self, seconds: float | None) -> None:
        """Whoever joins is not kept waiting."""
        self._joined.clear()
        if any(watch.reached is None for watch in self._watches):
            return
        try:
            async with asyncio.timeout(seconds):
                await self._joined.wait()
        except TimeoutError:
            pass
