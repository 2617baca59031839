"""An alarm is raised once and cleared once, and only by a later measurement than the one before."""

from datetime import timedelta

from domain.plant_alarm import PlantAlarm
from tests.examples import MEASURED, alarm_cleared, alarm_created, alarm_raised
from tests.given import given

SECOND = timedelta(seconds=1)
LATER = MEASURED + timedelta(minutes=1)
RAISED = (alarm_created(), alarm_raised())
TOLD = ("acme", "esm-001")


def test_it_is_raised_once() -> None:
    violation = ("SOC", MEASURED, 95.0, 10.0, 90.0, *TOLD)
    given(alarm_created()).when(PlantAlarm.raise_alarm, *violation).then(alarm_raised())
    given(*RAISED).when(PlantAlarm.raise_alarm, "SOC", LATER, 97.0, 10.0, 90.0, *TOLD).then()


def test_it_is_cleared_once() -> None:
    given(*RAISED).when(PlantAlarm.clear_alarm, "SOC", LATER, 90.0, *TOLD).then(alarm_cleared())
    given(*RAISED, alarm_cleared()).when(PlantAlarm.clear_alarm, "SOC", LATER + SECOND, 80.0, *TOLD).then()
    given(alarm_created()).when(PlantAlarm.clear_alarm, "SOC", LATER, 90.0, *TOLD).then()


def test_what_was_measured_before_changes_nothing() -> None:
    given(*RAISED).when(PlantAlarm.clear_alarm, "SOC", MEASURED, 90.0, *TOLD).then()
    cleared = given(*RAISED, alarm_cleared())
    cleared.when(PlantAlarm.raise_alarm, "SOC", LATER, 95.0, 10.0, 90.0, *TOLD).then()
    cleared.when(PlantAlarm.raise_alarm, "SOC", LATER + SECOND, 95.0, 10.0, 90.0, *TOLD).then(
        alarm_raised(LATER + SECOND)
    )


def test_power_and_charge_are_two_alarms() -> None:
    given(*RAISED).when(PlantAlarm.raise_alarm, "BATTERY_POWER", MEASURED, 60.0, -50.0, 50.0, *TOLD).then(
        alarm_raised(constraint="BATTERY_POWER", value=60.0, minimum=-50.0, maximum=50.0)
    )
