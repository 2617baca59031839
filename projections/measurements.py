"""What telemetry and meters share: the window of a query, the limits of time, and what a batch came to."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString, NamedTuple, Protocol, Self, TypeVar
from uuid import UUID

import psycopg

from domain.errors import BadRequest
from projections.partitions import RETENTION_DAYS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RETENTION = timedelta(days=RETENTION_DAYS)
# How far a plant's clock may run ahead of ours.
TOLERANCE = timedelta(minutes=5)
MAX_BUCKETS = 10_000
# Beyond any plant, and far from where a sum would overflow and take the whole batch with it.
MAX_VALUE = 1e12
# That one transaction may touch.
DAYS_AT_ONCE = 31


class BadWindow(BadRequest, ValueError):
    """The time range is not valid"""


class Recorded(NamedTuple):
    """What became of a batch: every measurement in it is counted once.

    `refused` ones are too old, too far in the future, or no storable value; `conflicts` have another value than the
    one that is stored for their identity, and stands.
    """

    new: int = 0
    repeated: int = 0
    conflicts: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """Whole buckets, aligned to the UTC epoch: `start` is in, `end` is out."""

    start: datetime
    end: datetime
    bucket: timedelta

    @classmethod
    def of(
        cls,
        start: datetime | None = None,
        end: datetime | None = None,
        minutes: int = 5,
        *,
        now: datetime | None = None,
    ) -> Self:
        """The buckets that a question touches; without times the last 24 h. A naive time is UTC.

        Raises BadWindow when start >= end, with more than 10 000 buckets, or when a bucket has not 1..60 minutes.
        """
        if not 1 <= minutes <= 60:
            raise BadWindow("bucket must be between 1 and 60 minutes")
        end = _utc(end) if end else (now or datetime.now(UTC))
        start = _utc(start) if start else end - timedelta(hours=24)
        if start >= end:
            raise BadWindow("from must be earlier than to")
        bucket = timedelta(minutes=minutes)
        first, last = (start - EPOCH) // bucket, -((EPOCH - end) // bucket)
        if last - first > MAX_BUCKETS:
            raise BadWindow(f"{last - first} buckets of {minutes} min are too many: at most {MAX_BUCKETS}")
        try:
            return cls(EPOCH + first * bucket, EPOCH + last * bucket, bucket)
        except OverflowError:
            raise BadWindow("the time range is out of the calendar") from None

    def question(self, plant_id: UUID) -> dict[str, object]:
        """What a statement that reads a roll-up is asked with."""
        return {"plant_id": plant_id, "start": self.start, "end": self.end, "width": self.bucket, "epoch": EPOCH}


def limits(now: datetime | None, retention: timedelta) -> tuple[datetime, datetime]:
    """The earliest and the latest time that is recorded at this moment."""
    now = now or datetime.now(UTC)
    return now - retention, now + TOLERANCE


def days(times: Sequence[datetime]) -> set[date]:
    """The UTC days on which these moments lie."""
    first, last = min(times).astimezone(UTC).date(), max(times).astimezone(UTC).date()
    # Nearly always; looking at each of the thousands of times is for the rest.
    if last - first <= timedelta(days=1):
        return {first, last}
    return {time.astimezone(UTC).date() for time in times}


class Timed(Protocol):
    @property
    def time(self) -> datetime: ...


T = TypeVar("T", bound=Timed)


def by_days(measured: Sequence[T]) -> Iterator[Sequence[T]]:
    """In pieces of few days each, the newest first: each piece is for a transaction of its own.

    A transaction holds locks on every partition that it touches, and the server has room for some thousands in all.
    """
    if not measured or len(days([each.time for each in measured])) <= DAYS_AT_ONCE:
        yield measured
        return
    of_day: dict[date, list[T]] = {}
    for each in measured:
        of_day.setdefault(each.time.astimezone(UTC).date(), []).append(each)
    newest_first = sorted(of_day, reverse=True)
    for first in range(0, len(newest_first), DAYS_AT_ONCE):
        yield [each for day in newest_first[first : first + DAYS_AT_ONCE] for each in of_day[day]]


@dataclass(frozen=True, slots=True)
class Staging:
    """A temporary table that a batch is copied into: one COPY costs the client a third of what arrays would.

    Its rows go with the transaction. `columns` are those of the rows, with their types; `place` is a row's place.
    """

    name: LiteralString
    columns: dict[LiteralString, LiteralString]

    def fill(self, cursor: psycopg.Cursor[Any], rows: Iterable[tuple[Any, ...]]) -> None:
        """Put these rows, and no others, into the table."""
        cursor.execute("SELECT to_regclass('pg_temp.' || %s) IS NULL", (self.name,))
        if number(cursor):
            columns = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
            place = "place integer GENERATED ALWAYS AS IDENTITY"
            cursor.execute(f"CREATE TEMP TABLE {self.name} ({place}, {columns}) ON COMMIT DELETE ROWS")
        # An earlier batch of the same transaction; mostly there is none.
        cursor.execute(f"DELETE FROM {self.name}")
        with cursor.copy(f"COPY {self.name} ({', '.join(self.columns)}) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(list(self.columns.values()))
            for row in rows:
                copy.write_row(row)


def number(cursor: psycopg.Cursor[Any]) -> int:
    """The one number that a statement answered."""
    row = cursor.fetchone()
    return row[0] if row else 0


def _utc(time: datetime) -> datetime:
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise BadWindow("the time range is out of the calendar") from None
