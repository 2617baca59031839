"""What the sandbox ESM knows and decides: plants, configs with versions, and changes answered now or later."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from application.ports import EsmAnswer, EsmPlant, EsmPlantConfig
from domain.day_plan import TimeBlock, problems
from infra.sandbox.physics import Site


@dataclass(frozen=True)
class SandboxPlant:
    """A plant at the ESM; kWh, kWp and kW. Its changes are answered `late_polls` or `late_seconds` later."""

    plant_id: str
    name: str
    description: str | None = None
    capacity_kwh: float = 200.0
    max_power_kw: float = 100.0
    fve_peak_power_kwp: float = 120.0
    plant_with_load: bool = True
    config_enabled: bool = True
    esi_state: str = "ACTIVE"
    version: int = 1
    time_configs: tuple[TimeBlock, ...] = ()
    late_polls: int = 0
    late_seconds: float = 0.0

    def listed(self) -> EsmPlant:
        return EsmPlant(
            plant_id=self.plant_id,
            name=self.name,
            description=self.description,
            capacity_kwh=self.capacity_kwh,
            fve_peak_power_kwp=self.fve_peak_power_kwp,
            plant_with_load=self.plant_with_load,
            config_enabled=self.config_enabled,
            esi_state=self.esi_state,
        )

    def site(self) -> Site:
        """The same plant for the physics."""
        load = 0.6 * self.max_power_kw if self.plant_with_load else 0.0
        peak = self.fve_peak_power_kwp
        return Site(self.plant_id, self.capacity_kwh, self.max_power_kw, peak, load, self.time_configs)

    def config(self) -> EsmPlantConfig:
        return EsmPlantConfig(self.plant_id, self.version, self.config_enabled, self.esi_state, self.time_configs)


def believable_plants(number: int) -> list[SandboxPlant]:
    """The first `number` of an endless row of plants; the first three are each of another kind. Later ones say less of
    themselves: a list of 5 000 must fit into the 1 MB that an answer may have."""
    kinds = (
        ("Brno depot", "Battery, PV and the load of a bus depot", 200.0, 100.0, 120.0, True),
        ("Hodonin solar park", "PV park with a battery, no load of its own", 500.0, 250.0, 400.0, False),
        ("Ostrava storage", "Battery at the grid, nothing else", 1000.0, 500.0, 0.0, False),
    )
    plants = []
    for index in range(number):
        name, description, capacity, power, peak, with_load = kinds[index % len(kinds)]
        round_number = index // len(kinds) + 1
        plants.append(
            SandboxPlant(
                plant_id=f"esm-{index + 1:03d}",
                name=name if round_number == 1 else f"{name} {round_number}",
                description=description if round_number == 1 else None,
                capacity_kwh=capacity,
                max_power_kw=power,
                fve_peak_power_kwp=peak,
                plant_with_load=with_load,
                time_configs=_usual_day(power),
            )
        )
    return plants


@dataclass
class _Change:
    """A change that was taken; applied, and answered with `then`, when its time has come."""

    answer: EsmAnswer
    then: EsmAnswer
    plant_id: str
    blocks: tuple[TimeBlock, ...]
    validate_only: bool
    polls_left: int
    ready_at: float
    done: bool = field(default=False)


class SandboxPlants:
    """The ESM's plants; thread-safe. Unknown plants and request codes are KeyErrors."""

    def __init__(self, plants: int | Sequence[SandboxPlant] = 3, clock: Callable[[], float] = time.monotonic):
        first = believable_plants(plants) if isinstance(plants, int) else plants
        self._plants = {plant.plant_id: plant for plant in first}
        self._changes: dict[str, _Change] = {}
        self._codes = (f"REQ-{number:06d}" for number in itertools.count(1))
        self._clock = clock
        self._lock = threading.RLock()

    def all(self) -> list[SandboxPlant]:
        with self._lock:
            return list(self._plants.values())

    def get(self, plant_id: str) -> SandboxPlant:
        with self._lock:
            return self._plants[plant_id]

    def put(self, plant: SandboxPlant) -> None:
        """Adds it, or replaces the one with its id."""
        with self._lock:
            self._plants[plant.plant_id] = plant

    def change(self, plant_id: str, **fields: Any) -> SandboxPlant:
        """Changes fields of a plant by their names in SandboxPlant."""
        with self._lock:
            plant = self._plants[plant_id] = replace(self._plants[plant_id], **fields)
            return plant

    def remove(self, plant_id: str) -> None:
        with self._lock:
            del self._plants[plant_id]

    def update(self, plant_id: str, version: int, blocks: Sequence[TimeBlock], *, validate_only: bool) -> EsmAnswer:
        """Judges a change, and applies it now, later, or (`validate_only`) never."""
        with self._lock:
            plant = self._plants[plant_id]
            refusal = self._refusal(plant, version, blocks)
            code = next(self._codes)
            then = (
                refusal or ("VALID", "The plan is valid") if validate_only or refusal else ("OK", "The plan is applied")
            )
            answer = EsmAnswer(code, *then, is_error=refusal is not None, is_terminal=True)
            late = refusal is None and bool(plant.late_polls or plant.late_seconds)
            change = _Change(
                answer=EsmAnswer(code, "ACCEPTED", "The plan is being processed", is_error=False, is_terminal=False)
                if late
                else answer,
                then=answer,
                plant_id=plant_id,
                blocks=tuple(blocks),
                validate_only=validate_only or refusal is not None,
                polls_left=plant.late_polls if late else 0,
                ready_at=self._clock() + (plant.late_seconds if late else 0),
            )
            self._changes[code] = change
            if not late:
                self._finish(change)
            return change.answer

    def status(self, request_code: str) -> EsmAnswer:
        """The answer to a change by now; each ask counts as a poll."""
        with self._lock:
            change = self._changes[request_code]
            if not change.done:
                change.polls_left -= 1
                if change.polls_left <= 0 and self._clock() >= change.ready_at:
                    self._finish(change)
            return change.answer

    def _refusal(self, plant: SandboxPlant, version: int, blocks: Sequence[TimeBlock]) -> tuple[str, str] | None:
        if not plant.config_enabled:
            return "CONFIG_DISABLED", "The plant's configuration is disabled"
        if any(change.plant_id == plant.plant_id and not change.done for change in self._changes.values()):
            return "CHANGE_IN_FLIGHT", "Another change of this plant is being processed"
        if version != plant.version:
            return "VERSION_CONFLICT", f"The plan was based on version {version}, the current one is {plant.version}"
        if found := problems(blocks):
            return "INVALID_PLAN", str(found[0])
        strongest = max((max(abs(block.p_bat_min), abs(block.p_bat_max)) for block in blocks), default=0.0)
        if strongest > plant.max_power_kw:
            return "SETPOINT_OUT_OF_RANGE", f"{strongest:g} kW is beyond the plant's {plant.max_power_kw:g} kW"
        return None

    def _finish(self, change: _Change) -> None:
        change.done = True
        change.answer = change.then
        plant = self._plants.get(change.plant_id)
        if plant and not change.validate_only:
            self._plants[plant.plant_id] = replace(plant, version=plant.version + 1, time_configs=change.blocks)


def _usual_day(power: float) -> tuple[TimeBlock, ...]:
    """Charge at night and noon, keep the evening for discharging."""

    def block(start: str, end: str, lowest: float, highest: float) -> TimeBlock:
        band = {"p_bat_min": lowest, "p_bat_max": highest, "soc_min": 10.0, "soc_max": 95.0}
        return TimeBlock.model_validate({"from": start, "to": end, **band})

    return (
        block("00:00", "06:00", 0.0, power / 2),
        block("06:00", "17:00", -power, power),
        block("17:00", "22:00", -power, 0.0),
        block("22:00", "24:00", -power / 2, power / 2),
    )
