"""The bands that a plant's day plan sets, by the minute of its wall clock, and when a measurement leaves one."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from domain.day_plan import minute

Constraint = Literal["BATTERY_POWER", "SOC"]

POWER_NOISE_KW = 0.1
POWER_NOISE_SHARE = 0.02
SOC_NOISE_PERCENT = 1.0
"""What meters and regulators are off by: a band is left only beyond this (the greater of the two for power, whose share
is of the band's greater bound), and kept again only within half of it, so that no alarm flickers."""


@dataclass(frozen=True)
class Band:
    """kW or %; `noise` is how far outside still counts as inside."""

    minimum: float
    maximum: float
    noise: float

    def is_left_by(self, value: float) -> bool:
        return value < self.minimum - self.noise or value > self.maximum + self.noise

    def is_kept_by(self, value: float) -> bool:
        return self.minimum - self.noise / 2 <= value <= self.maximum + self.noise / 2


Bands = Mapping[Constraint, Band]
NO_BANDS: Bands = {}


class DayBands:
    """Of one plan; `time_configs` are its blocks with the API's names."""

    def __init__(self, time_configs: Sequence[Mapping[str, Any]]) -> None:
        blocks = sorted(time_configs, key=lambda block: minute(block["from"]))
        self._starts = [minute(block["from"]) for block in blocks]
        self._ends = [24 * 60 if block["to"] == "23:59" else minute(block["to"]) for block in blocks]
        self._bands = [_bands(block) for block in blocks]

    def at(self, minute_of_day: int) -> Bands:
        """None are in force outside the plan's blocks."""
        index = bisect_right(self._starts, minute_of_day) - 1
        return self._bands[index] if index >= 0 and minute_of_day < self._ends[index] else NO_BANDS


def _bands(block: Mapping[str, Any]) -> Bands:
    low, high = float(block["pBatMin"]), float(block["pBatMax"])
    power_noise = max(POWER_NOISE_KW, POWER_NOISE_SHARE * max(abs(low), abs(high)))
    return {
        "BATTERY_POWER": Band(low, high, power_noise),
        "SOC": Band(float(block["socMin"]), float(block["socMax"]), SOC_NOISE_PERCENT),
    }
