"""CONSTRAINT_VIOLATION: a plant's newest measurement against the band of the plan that its ESM applied last."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import rfc8785

from application.event_log import EventLog, again_if_overtaken
from application.ports import Message
from domain import vcp
from domain.constraints import Bands, Constraint, DayBands
from domain.plant import Plant
from domain.plant_alarm import PlantAlarm
from domain.plant_config import PlantConfig
from domain.topology import VCP_EXCHANGE
from domain.trading_config import TradingConfig

CLOCKS_DIFFER = timedelta(minutes=5)
"""A plan binds what was measured from its answer on; a plant's clock may be behind ours by so much."""

UNITS: dict[Constraint, str] = {"BATTERY_POWER": "kW", "SOC": "%"}

ALARM_EVENTS = (PlantAlarm.Raised, PlantAlarm.Cleared)


class Measured(NamedTuple):
    """A plant's newest sample: kW (+ charges), %; None is not known."""

    plant_id: UUID
    time: datetime
    battery_power: float | None
    soc: float | None


class _Watched(NamedTuple):
    """What we know of a plant: its plan, since when, and which alarms are raised."""

    bands: DayBands | None
    since: datetime
    raised: frozenset[Constraint]


@dataclass
class Alarms:
    """Plans and raised alarms are held in memory: who calls `forget` for what changed makes them true again.

    `clock` is the time zone of the plants' wall clocks."""

    events: EventLog
    clock: tzinfo = UTC
    _watched: dict[UUID, _Watched] = field(default_factory=dict, repr=False)
    _plant_of: dict[UUID, UUID] = field(default_factory=dict, repr=False)

    def forget(self, streams: Collection[UUID] | None = None) -> None:
        """What was learned from these streams, or everything."""
        if streams is None:
            self._watched.clear()
            self._plant_of.clear()
            return
        for stream in streams:
            plant_id = self._plant_of.get(stream)
            if plant_id is not None:
                self._watched.pop(plant_id, None)

    def suspects(self, measured: Sequence[Measured]) -> list[Measured]:
        """Those that may change an alarm; for all others this costs no question to anybody."""
        unknown = [each.plant_id for each in measured if each.plant_id not in self._watched]
        if unknown:
            self._learn(unknown)
        minutes: dict[datetime, int] = {}
        return [each for each in measured if self._changes(each, minutes)]

    @again_if_overtaken
    def judge(self, measured: Measured) -> None:
        """Raises and clears what this measurement does, by what the log says now."""
        config = self.events.find(PlantConfig, PlantConfig.create_id(measured.plant_id))
        plant = self.events.load(Plant, measured.plant_id)
        alarm = self.events.find(PlantAlarm, PlantAlarm.create_id(measured.plant_id))
        watched = _watch(config, alarm)
        alarm = alarm or _new(plant)
        prefix = self.events.load(TradingConfig, TradingConfig.create_id(plant.organization_id)).queue_prefix
        at = measured.time.astimezone(UTC)
        bands = self._bands(watched, measured.time, {})
        if bands is None:
            return
        for constraint, value in _values(measured):
            band = bands.get(constraint)
            if constraint in watched.raised and (band is None or band.is_kept_by(value)):
                alarm.clear_alarm(constraint, at, value, prefix, plant.external_plant_id)
            elif band is not None and band.is_left_by(value):
                alarm.raise_alarm(constraint, at, value, band.minimum, band.maximum, prefix, plant.external_plant_id)
        if alarm.version > 1 and alarm.pending_events:
            self.events.save(alarm)
        self._keep(measured.plant_id, config, alarm)

    def _learn(self, plant_ids: Sequence[UUID]) -> None:
        configs = self.events.find_all(PlantConfig, [PlantConfig.create_id(each) for each in plant_ids])
        alarms = self.events.find_all(PlantAlarm, [PlantAlarm.create_id(each) for each in plant_ids])
        for each in plant_ids:
            self._keep(each, configs.get(PlantConfig.create_id(each)), alarms.get(PlantAlarm.create_id(each)))

    def _keep(self, plant_id: UUID, config: PlantConfig | None, alarm: PlantAlarm | None) -> None:
        self._watched[plant_id] = _watch(config, alarm)
        self._plant_of[PlantConfig.create_id(plant_id)] = plant_id
        self._plant_of[PlantAlarm.create_id(plant_id)] = plant_id

    def _changes(self, measured: Measured, minutes: dict[datetime, int]) -> bool:
        watched = self._watched[measured.plant_id]
        bands = self._bands(watched, measured.time, minutes)
        if bands is None:
            return False
        for constraint, value in _values(measured):
            band = bands.get(constraint)
            if constraint in watched.raised:
                if band is None or band.is_kept_by(value):
                    return True
            elif band is not None and band.is_left_by(value):
                return True
        return False

    def _bands(self, watched: _Watched, time: datetime, minutes: dict[datetime, int]) -> Bands | None:
        """In force at a moment, None if that is before any plan; `minutes` remembers each minute's wall clock."""
        if watched.bands is None or time < watched.since - CLOCKS_DIFFER:
            return None
        whole = time.replace(second=0, microsecond=0)
        minute = minutes.get(whole)
        if minute is None:
            local = whole.astimezone(self.clock)
            minute = minutes[whole] = local.hour * 60 + local.minute
        return watched.bands.at(minute)


def alarm_message(event: PlantAlarm.Raised | PlantAlarm.Cleared, headers: dict[str, Any]) -> Message:
    """What the partner is told; raising and clearing share the alarm's id, which is also their correlation."""
    is_raised = isinstance(event, PlantAlarm.Raised)
    raised_at = event.measured_at if isinstance(event, PlantAlarm.Raised) else event.raised_at
    alarm_id = uuid5(event.originator_id, f"{event.constraint}:{vcp.rfc3339(raised_at)}")
    payload: dict[str, Any] = {
        "alarmId": str(alarm_id),
        "type": "CONSTRAINT_VIOLATION",
        "status": "RAISED" if is_raised else "CLEARED",
        "constraint": event.constraint,
        "unit": UNITS[event.constraint],
        "value": event.value,
        "measuredAt": vcp.rfc3339(event.measured_at),
    }
    if isinstance(event, PlantAlarm.Raised):
        payload |= {"minimum": event.minimum, "maximum": event.maximum}
    message_id = vcp.message_id(alarm_id, payload["status"])
    envelope = vcp.emit(message_id, event.site_id, payload, event.timestamp, str(alarm_id))
    key = f"{event.queue_prefix}.event.alarm"
    return Message(VCP_EXCHANGE, key, rfc8785.dumps(envelope), str(message_id), headers)


def _values(measured: Measured) -> list[tuple[Constraint, float]]:
    values: list[tuple[Constraint, float]] = []
    if measured.battery_power is not None:
        values.append(("BATTERY_POWER", measured.battery_power))
    if measured.soc is not None:
        values.append(("SOC", measured.soc))
    return values


def _watch(config: PlantConfig | None, alarm: PlantAlarm | None) -> _Watched:
    raised = frozenset(alarm.raised) if alarm else frozenset[Constraint]()
    if config is None or config.applied is None:
        return _Watched(None, datetime.max.replace(tzinfo=UTC), raised)
    return _Watched(DayBands(config.applied.time_configs), config.applied.at, raised)


def _new(plant: Plant) -> PlantAlarm:
    created: PlantAlarm = PlantAlarm(organization_id=plant.organization_id, plant_id=plant.id)
    return created
