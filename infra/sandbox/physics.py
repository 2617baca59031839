"""A plausible day of a plant: sun, load, a battery that follows its plan or a setpoint, and the meters."""

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone, tzinfo
from hashlib import blake2b
from typing import Any, Literal

from domain.day_plan import TimeBlock, minute

LATITUDE = math.radians(49.5)
EFFICIENCY = 0.95  # of the battery, each way
CET = timezone(timedelta(hours=1), "CET")  # no ZoneInfo, which slim machines have no data for
STEP = timedelta(minutes=1)
LONGEST_GAP = timedelta(days=1)

Mode = Literal["DAY_PLAN", "SETPOINT", "STOPPED"]


@dataclass(frozen=True)
class Site:
    """What stands there: kWh, kW, kWp; `clock` is the plant's time zone, `seed` gives it its own weather and habits."""

    seed: str
    capacity_kwh: float
    max_power_kw: float
    fve_peak_power_kwp: float
    load_kw: float
    plan: tuple[TimeBlock, ...] = ()
    clock: tzinfo = CET


@dataclass(frozen=True)
class Setpoint:
    """What the partner wants, kW, import above zero and export below, until `valid_until`: at the grid meter, or
    (without `include_consumption`) of the battery alone."""

    target_kw: float
    include_consumption: bool = True
    valid_until: datetime | None = None


@dataclass(frozen=True)
class Flows:
    """Power at one moment, kW: grid + import, battery + charges, PV and load ≥ 0; `fve_reg` in %."""

    grid_kw: float
    fve_kw: float
    battery_kw: float
    consumption_kw: float
    fve_reg: float
    mode: Mode


def flows(site: Site, at: datetime, soc: float, setpoint: Setpoint | None = None, *, stopped: bool = False) -> Flows:
    """The power flows of a site at a moment, its battery at `soc` %: a pure function."""
    load = _load(site, at)
    sun = _sun(site, at)
    if stopped:
        return Flows(load, 0.0, 0.0, load, 0.0, "STOPPED")
    if setpoint is None:
        wanted, band, mode = sun - load, _band(site, at), "DAY_PLAN"
    else:
        wanted = setpoint.target_kw - load + sun if setpoint.include_consumption else setpoint.target_kw
        band, mode = (-site.max_power_kw, site.max_power_kw, 5.0, 100.0), "SETPOINT"
    battery = _battery(site, wanted, band, soc)
    return Flows(load + battery - sun, sun, battery, load, 100.0, "SETPOINT" if mode == "SETPOINT" else "DAY_PLAN")


@dataclass(frozen=True)
class Measurements:
    """What a plant tells at one moment: its flows, the state of its battery, and its meters (kWh, cumulative)."""

    at: datetime
    flows: Flows
    soc_percent: float
    available_kwh: float
    temperature_celsius: float
    import_kwh: float
    export_kwh: float
    fve_kwh: float

    def telemetry(self) -> dict[str, Any]:
        """The payload of a realtime message (amqp.md, Telemetry)."""
        return {
            "gridPowerKw": _kw(self.flows.grid_kw),
            "fvePowerKw": _kw(self.flows.fve_kw),
            "batteryPowerKw": _kw(self.flows.battery_kw),
            "consumptionPowerKw": _kw(self.flows.consumption_kw),
            "socPercent": round(self.soc_percent, 2),
            "fveReg": self.flows.fve_reg,
            "availableBatteryEnergyKwh": round(self.available_kwh, 3),
            "batteryTemperatureCelsius": round(self.temperature_celsius, 1),
            "currentOperatingMode": self.flows.mode,
            "dataQuality": "GOOD",
        }

    def meters(self) -> list[dict[str, Any]]:
        """The `meters` of a meter message; its `readingAt` is `at`."""
        counted = {"import": self.import_kwh, "export": self.export_kwh, "pv": self.fve_kwh}
        return [{"meterId": meter, "energyKwh": round(energy, 4)} for meter, energy in counted.items()]


@dataclass
class PlantModel:
    """One simulated plant: `step` moves it to a moment; times must ascend, and a gap of over a day is skipped."""

    site: Site
    soc: float = 50.0
    import_kwh: float = 0.0
    export_kwh: float = 0.0
    fve_kwh: float = 0.0
    setpoint: Setpoint | None = None
    stopped: bool = False
    _at: datetime | None = field(default=None, repr=False)

    def step(self, now: datetime) -> Measurements:
        """Lives up to `now` (with a time zone) in steps of at most a minute, and measures."""
        at = max(self._at or now, now - LONGEST_GAP)
        while at < now:
            until = min(at + STEP, now)
            self._live(at, until)
            at = until
        self._at = at
        current = flows(self.site, at, self.soc, self._setpoint_at(at), stopped=self.stopped)
        return Measurements(
            at=at,
            flows=current,
            soc_percent=self.soc,
            available_kwh=self.site.capacity_kwh * self.soc / 100,
            temperature_celsius=22 + 8 * abs(current.battery_kw) / max(self.site.max_power_kw, 1),
            import_kwh=self.import_kwh,
            export_kwh=self.export_kwh,
            fve_kwh=self.fve_kwh,
        )

    def apply_setpoint(
        self,
        direction: Literal["IMPORT", "EXPORT"],
        target_kw: float,
        *,
        include_consumption: bool = True,
        valid_until: datetime | None = None,
    ) -> bool:
        """Follows it from now on, the latest wins; False, and nothing changes, when it is beyond the plant's power."""
        reach = self.site.max_power_kw + self.site.fve_peak_power_kwp + self.site.load_kw
        if target_kw < 0 or target_kw > (reach if include_consumption else self.site.max_power_kw):
            return False
        signed = target_kw if direction == "IMPORT" else -target_kw
        self.setpoint = Setpoint(signed, include_consumption, valid_until)
        return True

    def apply_plan(self, plan: tuple[TimeBlock, ...]) -> None:
        self.site = replace(self.site, plan=plan)

    def stop(self) -> None:
        """Emergency: battery and PV stand still until `release`."""
        self.stopped = True

    def release(self) -> None:
        """The end of the emergency: back to what it followed before."""
        self.stopped = False

    def _live(self, start: datetime, end: datetime) -> None:
        hours = (end - start).total_seconds() / 3600
        now = flows(self.site, start, self.soc, self._setpoint_at(start), stopped=self.stopped)
        self.import_kwh += max(now.grid_kw, 0) * hours
        self.export_kwh += max(-now.grid_kw, 0) * hours
        self.fve_kwh += now.fve_kw * hours
        if self.site.capacity_kwh > 0:
            stored = now.battery_kw * (EFFICIENCY if now.battery_kw > 0 else 1 / EFFICIENCY)
            self.soc = min(100.0, max(0.0, self.soc + 100 * stored * hours / self.site.capacity_kwh))

    def _setpoint_at(self, at: datetime) -> Setpoint | None:
        if self.setpoint and self.setpoint.valid_until and at >= self.setpoint.valid_until:
            return None
        return self.setpoint


def _kw(power: float) -> float:
    """To the watt, and never -0.0."""
    return round(power, 3) + 0.0


def _battery(site: Site, wanted: float, band: tuple[float, float, float, float], soc: float) -> float:
    """What the battery does of what is wanted: within its power, the band, and what its charge allows."""
    lowest, highest, soc_min, soc_max = band
    if site.capacity_kwh <= 0:
        return 0.0
    power = max(-site.max_power_kw, min(site.max_power_kw, max(lowest, min(highest, wanted))))
    if power > 0:  # it slows down near its bounds, as real ones do
        return power * min(1.0, max(0.0, (soc_max - soc) / 2))
    return power * min(1.0, max(0.0, (soc - soc_min) / 2))


def _band(site: Site, at: datetime) -> tuple[float, float, float, float]:
    """Power and charge bounds of the plan's block at a moment; where the plan says nothing, the battery's own."""
    clock = at.astimezone(site.clock)
    now = clock.hour * 60 + clock.minute
    for block in site.plan:
        if minute(block.from_) <= now < (24 * 60 if block.to == "23:59" else minute(block.to)):
            return block.p_bat_min, block.p_bat_max, block.soc_min, block.soc_max
    return -site.max_power_kw, site.max_power_kw, 10.0, 95.0


def _sun(site: Site, at: datetime) -> float:
    """PV power, kW: the sun's height over the horizon at that place and day, dimmed by clouds."""
    local = at.astimezone(site.clock)
    noon = 12 + (local.dst() or timedelta()).total_seconds() / 3600
    hour_angle = math.radians(15 * (local.hour + local.minute / 60 + local.second / 3600 - noon))
    declination = math.radians(-23.44) * math.cos(2 * math.pi * (local.timetuple().tm_yday + 10) / 365.25)
    height = math.sin(LATITUDE) * math.sin(declination)
    height += math.cos(LATITUDE) * math.cos(declination) * math.cos(hour_angle)
    clouds = 0.35 + 0.65 * _noise(f"{site.seed}/clouds", at, minutes=30)
    return site.fve_peak_power_kwp * math.pow(max(0.0, height), 1.2) * clouds


def _load(site: Site, at: datetime) -> float:
    """Consumption, kW: a base, a morning and an evening peak, and what nobody can foresee."""
    local = at.astimezone(site.clock)
    hour = local.hour + local.minute / 60
    peaks = 0.35 * math.exp(-(((hour - 7.5) / 1.8) ** 2)) + 0.5 * math.exp(-(((hour - 19) / 2.5) ** 2))
    return site.load_kw * (0.25 + peaks + 0.25 * _noise(f"{site.seed}/load", at, minutes=10))


def _noise(seed: str, at: datetime, minutes: int) -> float:
    """0..1, smooth in time, the same for the same moment: values at fixed moments, with straight lines between."""
    slot, within = divmod(at.timestamp() / 60, minutes)
    before, after = _chance(seed, int(slot)), _chance(seed, int(slot) + 1)
    return before + (after - before) * within / minutes


def _chance(seed: str, slot: int) -> float:
    digest = blake2b(f"{seed}/{slot}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32
