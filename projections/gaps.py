"""Samples that a plant should have sent and that are not here, by day."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from projections.exports import Span

# A plant's usual interval is the median of those between its last samples in the range.
LOOKED_AT = 2000
USUAL = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM time - before))
FROM (SELECT time, lag(time) OVER (ORDER BY time) AS before FROM (
  SELECT time FROM telemetry WHERE plant_id = %s AND time >= %s AND time < %s ORDER BY time DESC LIMIT %s) last) steps
"""
RECEIVED = """
SELECT plant_id, count(*) FROM telemetry WHERE plant_id = ANY(%s) AND time >= %s AND time < %s GROUP BY plant_id
"""


@dataclass(frozen=True)
class Gap:
    """A UTC day of a plant, or the part of it that was asked for; `every_s` is the interval that `expected` counts."""

    plant: str
    day: date
    every_s: float
    expected: int
    received: int

    @property
    def missing(self) -> int:
        """More than expected is none."""
        return max(0, self.expected - self.received)


def gaps(
    connection: "psycopg.Connection[Any]",
    plants: Mapping[UUID, str],
    span: Span,
    every: timedelta | None = None,
) -> Iterator[Sequence[Gap]]:
    """Of each day of the range, by plant. Plants without a sample in it are left out, unless `every` says what to
    expect of them."""
    seconds = {plant_id: every.total_seconds() if every else _usual(connection, plant_id, span) for plant_id in plants}
    for start, end in span.days():
        rows = connection.execute(RECEIVED, (list(plants), start, end), prepare=False).fetchall()
        received: dict[UUID, int] = dict(rows)
        yield [
            Gap(name, start.date(), step, round((end - start).total_seconds() / step), received.get(plant_id, 0))
            for plant_id, name in plants.items()
            if (step := seconds[plant_id])
        ]


def _usual(connection: "psycopg.Connection[Any]", plant_id: UUID, span: Span) -> float | None:
    """In whole seconds where it is one at least."""
    row = connection.execute(USUAL, (plant_id, span.start, span.end, LOOKED_AT), prepare=False).fetchone()
    step: float | None = row[0] if row else None
    return None if not step else float(round(step)) if step >= 1 else step


def parsed_interval(text: str) -> timedelta:
    """`10s`, `500ms`, `1m`; raises ValueError."""
    units = {"ms": timedelta(milliseconds=1), "s": timedelta(seconds=1), "m": timedelta(minutes=1)}
    number = text.strip().rstrip("ms")
    unit = units.get(text.strip()[len(number) :])
    try:
        found = float(number) * unit if unit else None
    except (ValueError, OverflowError):
        found = None
    if not found or found <= timedelta(0):
        raise ValueError(f"{text} is no interval; write 10s, 500ms or 1m")
    return found


def until_now(span: Span, now: datetime) -> Span:
    """Of what is still to come nothing is expected."""
    return Span(span.start, min(span.end, max(now, span.start + timedelta(microseconds=1))))
