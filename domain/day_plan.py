"""A plant's day plan: the time blocks of its configuration and the rules between them (api.md, Plants).

Its times are the plant's wall clock, so one plan does for every day of the year, those on which the clocks change
included: see `minutes_on`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import accumulate
from typing import Any, Literal

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

MAX_BLOCKS = 96
MAX_POWER_KW = 100_000
_DAY_END = 24 * 60
_CLOCK = re.compile(r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")


Rule = Literal["overlap", "gap", "order", "day-end", "power-band", "soc-band"]


@dataclass(frozen=True)
class PlanProblem:
    """One broken rule: where (`timeConfigs.1.from`), what, and the rule's name."""

    place: str
    text: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class TimeBlock(BaseModel):
    """One block of a day: the band of battery power (kW, + charges, − discharges) and of state of charge (%).

    `from` and `to` are the plant's wall clock, HH:MM; `to` may be 24:00.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=AliasGenerator(to_camel),
        populate_by_name=True,
    )

    from_: str = Field(alias="from", examples=["00:00"], json_schema_extra={"pattern": _CLOCK.pattern})
    to: str = Field(examples=["06:00"], json_schema_extra={"pattern": _CLOCK.pattern})
    p_bat_min: float = Field(ge=-MAX_POWER_KW, le=MAX_POWER_KW, allow_inf_nan=False)
    p_bat_max: float = Field(ge=-MAX_POWER_KW, le=MAX_POWER_KW, allow_inf_nan=False)
    soc_min: float = Field(ge=0, le=100, allow_inf_nan=False)
    soc_max: float = Field(ge=0, le=100, allow_inf_nan=False)

    @field_validator("from_", "to")
    @classmethod
    def _is_clock_time(cls, value: str) -> str:
        if not _CLOCK.fullmatch(value):
            raise ValueError("must be HH:MM between 00:00 and 23:59 (24:00 as the end of the day)")
        return value

    def as_json(self) -> dict[str, Any]:
        """The block with the API's names."""
        return self.model_dump(by_alias=True)


def problems(blocks: Iterable[TimeBlock]) -> list[PlanProblem]:
    """Every rule that these blocks break among themselves; empty when the plan is sound."""
    numbered = list(enumerate(blocks))
    found = [problem for number, block in numbered for problem in _block_problems(number, block)]
    in_order = sorted(numbered, key=lambda item: minute(item[1].from_))
    # Of those before, the one that reaches furthest: it may hold several.
    furthest = accumulate((block for _, block in in_order), _further)
    for earlier, (number, later) in zip(furthest, in_order[1:], strict=False):
        place = f"timeConfigs.{number}.from"
        if minute(later.from_) < _end(earlier):
            found.append(PlanProblem(place, f"overlaps the block {earlier.from_}-{earlier.to}", "overlap"))
        elif minute(later.from_) > _end(earlier):
            found.append(PlanProblem(place, f"leaves a gap after the block {earlier.from_}-{earlier.to}", "gap"))
    return found


def minutes_on(blocks: Sequence[TimeBlock], day: date, zone: tzinfo) -> list[int]:
    """How many minutes of a day each block of a sound plan is in force: its own length, but when the clocks change.

    Blocks go by the wall clock. On a day of 23 hours a block loses what is skipped, on one of 25 hours it counts what
    comes twice twice, also when that splits it in two.
    """
    counted = [0] * len(blocks)
    spans = [(minute(block.from_), _end(block)) for block in blocks]
    moment, end = (datetime.combine(day + timedelta(days=n), time(), zone).astimezone(UTC) for n in (0, 1))
    while moment < end:
        local = moment.astimezone(zone)
        now = local.hour * 60 + local.minute
        for number, (first, last) in enumerate(spans):
            counted[number] += first <= now < last
        moment += timedelta(minutes=1)
    return counted


def minute(clock: str) -> int:
    """Minutes since midnight of HH:MM."""
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def _end(block: TimeBlock) -> int:
    """A block's end in minutes; 23:59 counts as the day's end."""
    return _DAY_END if block.to == "23:59" else minute(block.to)


def _further(one: TimeBlock, other: TimeBlock) -> TimeBlock:
    return max(one, other, key=_end)


def _block_problems(number: int, block: TimeBlock) -> Iterable[PlanProblem]:
    place = f"timeConfigs.{number}"
    if block.from_ == "24:00":
        yield PlanProblem(f"{place}.from", "must be before the end of the day", "day-end")
    elif minute(block.from_) >= minute(block.to):
        yield PlanProblem(f"{place}.from", "must be before `to`", "order")
    if block.p_bat_min > block.p_bat_max:
        yield PlanProblem(f"{place}.pBatMin", "must not exceed pBatMax", "power-band")
    if block.soc_min > block.soc_max:
        yield PlanProblem(f"{place}.socMin", "must not exceed socMax", "soc-band")
