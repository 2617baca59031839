"""Measurements that came again with another value: the first one stands, and both are kept for who looks into it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from projections.exports import Span

CONFLICTS = """
SELECT plant_id, meter_id, time, first_value, other_value, received_at FROM measurement_conflicts
WHERE plant_id = ANY(%s) AND time >= %s AND time < %s ORDER BY time, plant_id, meter_id, received_at
"""


@dataclass(frozen=True)
class Conflict:
    """`first` stands, `other` came at `received_at`: a meter's kWh, or the fields of a sample that differ."""

    plant: str
    meter: str | None
    time: datetime
    first: Any
    other: Any
    received_at: datetime


def conflicts(connection: "psycopg.Connection[Any]", plants: Mapping[UUID, str], span: Span) -> list[Conflict]:
    """Of measurements in this range, by their time."""
    rows = connection.execute(CONFLICTS, (list(plants), span.start, span.end))
    return [
        Conflict(
            plants[plant_id],
            meter_id or None,
            time.astimezone(UTC),
            *_differing(first, other),
            received_at.astimezone(UTC),
        )
        for plant_id, meter_id, time, first, other, received_at in rows
    ]


def _differing(first: Any, other: Any) -> tuple[Any, Any]:
    if not isinstance(first, dict):
        return first, other
    fields = [name for name in first if first[name] != other.get(name)]
    return {name: first[name] for name in fields}, {name: other.get(name) for name in fields}
