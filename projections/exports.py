"""Measurements of a plant, read page by page: whatever the range, one page is in memory, and no transaction stays
open while somebody else takes his time with it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, Protocol, Self, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from psycopg.sql import SQL

from projections.measurements import BadWindow, Window
from projections.meters import MeterRow, meters
from projections.samples import COLUMNS, each
from projections.telemetry import TelemetryRow, telemetry

What = Literal["telemetry", "meters"]
Row = tuple[Any, ...]
T = TypeVar("T")

MAX_RANGE = timedelta(days=366)
DAY, MICROSECOND = timedelta(days=1), timedelta(microseconds=1)
PAGE_ROWS = 10_000

RAW_COLUMNS: dict[What, tuple[str, ...]] = {
    "telemetry": tuple(COLUMNS),
    "meters": ("plant_id", "meter_id", "time", "energy_kwh"),
}
BUCKET_COLUMNS: dict[What, tuple[str, ...]] = {
    "telemetry": tuple(TelemetryRow.__annotations__),
    "meters": tuple(MeterRow.__annotations__),
}
TEXTS = frozenset({"plant_id", "meter_id", "operating_mode", "data_quality", "interval"})

# Within a day, so that one partition is opened. A page ends where the next begins: after its last key.
SAMPLES = SQL("""
SELECT plant_id, time AT TIME ZONE 'UTC', {values} FROM telemetry
WHERE plant_id = %(plant_id)s AND time >= %(start)s AND time < %(end)s AND time > %(time)s
ORDER BY time LIMIT %(rows)s
""").format(values=each("@", tuple(COLUMNS)[2:]))
READINGS = """
SELECT plant_id, meter_id, time AT TIME ZONE 'UTC', energy_kwh FROM meter_readings
WHERE plant_id = %(plant_id)s AND time >= %(start)s AND time < %(end)s AND (time, meter_id) > (%(time)s, %(meter_id)s)
ORDER BY time, meter_id LIMIT %(rows)s
"""


class Ask(Protocol):
    """Lends a connection for one question."""

    async def __call__(self, question: "Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]]", /) -> T: ...


@dataclass(frozen=True, slots=True)
class Span:
    """The range of an export: `start` is in, `end` is out."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, start: datetime | None, end: datetime | None, *, now: datetime | None = None) -> Self:
        """Without times the last 24 h; a naive time is UTC. Raises BadWindow: start >= end, or more than 366 days."""
        try:
            end = _utc(end) if end else (now or datetime.now(UTC))
            start = _utc(start) if start else end - DAY
            _ = start - DAY, end + DAY  # where pages look for their edges
        except OverflowError:
            raise BadWindow("the time range is out of the calendar") from None
        if start >= end:
            raise BadWindow("from must be earlier than to")
        if end - start > MAX_RANGE:
            raise BadWindow(f"{(end - start).days} days are too many: at most {MAX_RANGE.days} in one export")
        return cls(start, end)

    def days(self) -> list[tuple[datetime, datetime]]:
        """Cut where partitions are."""
        edges = [self.start]
        while (midnight := edges[-1].replace(hour=0, minute=0, second=0, microsecond=0) + DAY) < self.end:
            edges.append(midnight)
        return list(zip(edges, [*edges[1:], self.end], strict=True))


@dataclass(frozen=True, slots=True)
class Export:
    """What is exported of a plant: samples and readings as they came, or `bucket` minutes of what they come to, in
    whole buckets as `Window` has them. Rows are tuples of `columns`, ascending by time, times naive and in UTC."""

    what: What
    plant_id: UUID
    span: Span
    bucket: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (RAW_COLUMNS if self.bucket is None else BUCKET_COLUMNS)[self.what]

    async def pages(self, ask: Ask, rows: int = PAGE_ROWS) -> AsyncGenerator[list[Row], None]:
        """Each page is as of when it was read."""
        if self.bucket is None:
            for start, end in self.span.days():
                async for page in self._day(ask, start, end, rows):
                    yield page
            return
        for window in windows(self.span, self.bucket):
            if page := await ask(partial(self._buckets, window=window)):
                yield page

    async def _day(self, ask: Ask, start: datetime, end: datetime, rows: int) -> AsyncGenerator[list[Row], None]:
        asked: dict[str, Any] = {"plant_id": self.plant_id, "start": start, "end": end, "rows": rows}
        asked |= {"time": start - MICROSECOND, "meter_id": ""}
        full = True
        while full:
            page = await ask(partial(self._raw, asked=dict(asked)))
            full = len(page) == rows
            if page:
                last = dict(zip(self.columns, page[-1], strict=True))
                asked |= {"time": last["time"].replace(tzinfo=UTC), "meter_id": last.get("meter_id", "")}
                yield page

    async def _raw(self, connection: "psycopg.AsyncConnection[Any]", asked: dict[str, Any]) -> list[Row]:
        async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
            # Planned anew each time, so that only the day's partition is opened.
            await cursor.execute(SAMPLES if self.what == "telemetry" else READINGS, asked, prepare=False)
            return await cursor.fetchall()

    async def _buckets(self, connection: "psycopg.AsyncConnection[Any]", window: Window) -> list[Row]:
        found: Sequence[Any] = await (telemetry if self.what == "telemetry" else meters)(
            connection, self.plant_id, window
        )
        return [tuple({**row, "time": row["time"].replace(tzinfo=None)}.values()) for row in found]


def windows(span: Span, minutes: int) -> list[Window]:
    """The span in pieces of some 1 000 whole buckets each."""
    whole = Window.of(span.start, span.start + MICROSECOND, minutes)
    start, step, found = whole.start, whole.bucket * 1000, []
    while start < span.end:
        found.append(Window.of(start, min(start + step, span.end), minutes))
        start += step
    return found


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
