"""CONSTRAINT_VIOLATION: from a sample that leaves the band to what the partner is told, once each way."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from psycopg import OperationalError

from application.alarms import Alarms
from application.plant_configs import PlantConfigChange
from domain.plant_alarm import PlantAlarm
from infra import postgres
from interfaces.amqp import Measurements
from interfaces.amqp.alarm_watch import AlarmWatch
from tests.examples import USER, block
from tests.relay.world import delivery
from tests.worker.site import Site, json, until
from tests.worker.test_measurements import message

KEY = "acme.event.telemetry.realtime.esm-001"


def moment(seconds: float = 0) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)


def configure(site: Site, *blocks: Any, **options: Any) -> None:
    with site.acting():
        change = PlantConfigChange(time_configs=list(blocks) or [block()], **options)
        site.plant_configs.change(site.organization_id, site.plant_id, change, USER)


def sample(at: datetime, power: float | None = 0, soc: float | None = 50, **more: Any) -> bytes:
    return message({"batteryPowerKw": power, "socPercent": soc, "dataQuality": "GOOD", **more}, at)


def alarms(site: Site) -> list[tuple[str, str, float]]:
    """What the log says: raised or cleared, of what, at which value."""
    rows = site.rows("SELECT topic, convert_from(state, 'UTF8')::json FROM events ORDER BY position")
    told = [(topic.partition(":")[2], state) for topic, state in rows if topic.startswith("plant-alarm:")]
    return [(kind, state["constraint"], state["value"]) for kind, state in told if kind != "created"]


class Intake:
    """The measurements' consumer of one worker, told what to take."""

    def __init__(self, site: Site, **options: Any) -> None:
        alarms = Alarms(site.events, **options)
        connect = lambda: postgres.connect(site.url, "test")  # noqa: E731
        self.measurements = Measurements(connect, alarms=AlarmWatch(alarms))

    def take(self, *bodies: bytes) -> None:
        letters = self.measurements([delivery(body, KEY, "vcp.ingest") for body in bodies])
        assert [letter.reason for letter in letters] == []


@contextmanager
def intake(site: Site, **options: Any) -> Iterator[Intake]:
    opened = Intake(site, **options)
    try:
        yield opened
    finally:
        opened.measurements.close()


@pytest.fixture
def known(local: Site) -> Site:
    """Its plants are in the read models; nobody consumes telemetry but the test."""
    local.worker().stop()
    return local


def test_the_partner_is_told_once_when_it_is_raised_and_once_when_it_is_cleared(site: Site) -> None:
    site.worker(alarms=Alarms(site.events))
    told = site.inbox("vcp.acme.event.alarm")
    configure(site)
    start = moment(-60)
    for seconds, power, soc in ((0, 10, 50), (5, 60, 50), (10, 61, 95), (15, 62, 95), (20, 0, 95), (25, 1, 60)):
        site.send_raw(KEY, sample(start + timedelta(seconds=seconds), power, soc))
        until(partial(site.rows, "SELECT 1 FROM telemetry WHERE time = %s", start + timedelta(seconds=seconds)))
    letters = told.wait_for(4)
    assert [letter.routing_key for letter in letters] == ["acme.event.alarm"] * 4
    envelopes = [json(letter) for letter in letters]
    payloads = [envelope["payload"] for envelope in envelopes]
    assert [(each["status"], each["constraint"], each["value"], each["unit"]) for each in payloads] == [
        ("RAISED", "BATTERY_POWER", 60, "kW"),
        ("RAISED", "SOC", 95, "%"),
        ("CLEARED", "BATTERY_POWER", 0, "kW"),
        ("CLEARED", "SOC", 60, "%"),
    ]
    assert {each["type"] for each in payloads} == {"CONSTRAINT_VIOLATION"}
    assert (payloads[0]["minimum"], payloads[0]["maximum"]) == (-50, 50)
    assert payloads[0]["alarmId"] == payloads[2]["alarmId"] != payloads[1]["alarmId"] == payloads[3]["alarmId"]
    assert {envelope["siteId"] for envelope in envelopes} == {"esm-001"}
    assert len({envelope["messageId"] for envelope in envelopes}) == 4
    assert payloads[0]["measuredAt"].startswith((start + timedelta(seconds=5)).isoformat()[:19])


def test_duplicates_late_and_unusable_samples_change_nothing(known: Site) -> None:
    configure(known)
    start = moment(-60)
    bad, good = sample(start, 70), sample(start + timedelta(seconds=10))
    with intake(known) as taken:
        taken.take(bad)
        taken.take(bad)
        taken.take(sample(start - timedelta(seconds=5)))
        taken.take(sample(start + timedelta(seconds=1), dataQuality="STALE"))
        taken.take(sample(start + timedelta(seconds=2), None, None))
        assert alarms(known) == [("raised", "BATTERY_POWER", 70)]
        taken.take(sample(start + timedelta(seconds=11), 71), good)
        taken.take(good)
        taken.take(sample(start + timedelta(seconds=12)))
        taken.take(bad)
        taken.take(sample(start + timedelta(seconds=5), 80))
    assert alarms(known) == [("raised", "BATTERY_POWER", 70), ("cleared", "BATTERY_POWER", 0)]


def test_a_restart_remembers(known: Site) -> None:
    configure(known)
    start = moment(-60)
    for seconds, power in ((0, 70), (1, 71), (2, 0), (3, 0)):
        with intake(known) as taken:
            taken.take(sample(start + timedelta(seconds=seconds), power))
    assert [kind for kind, *_ in alarms(known)] == ["raised", "cleared"]


def test_workers_side_by_side_raise_one(known: Site) -> None:
    configure(known)
    start = moment(-60)
    with intake(known) as one, intake(known) as other:
        one.take(sample(start))
        other.take(sample(start))
        one.take(sample(start + timedelta(seconds=2), 70))
        other.take(sample(start + timedelta(seconds=1), 0))
        other.take(sample(start + timedelta(seconds=3), 72))
        assert alarms(known) == [("raised", "BATTERY_POWER", 70)]
        other.take(sample(start + timedelta(seconds=5)))
        one.take(sample(start + timedelta(seconds=4), 73))
    assert [kind for kind, *_ in alarms(known)] == ["raised", "cleared"]


def test_only_what_the_esm_applied_binds(known: Site) -> None:
    start = moment(-60)
    with intake(known) as taken:
        taken.take(sample(start, 55))
        configure(known, validate_only=True)
        taken.measurements._alarms._position = None  # type: ignore[union-attr]
        taken.take(sample(start + timedelta(seconds=1), 55))
        assert alarms(known) == []
        configure(known)
        taken.measurements._alarms._checked_at = 0  # type: ignore[union-attr]
        taken.take(sample(moment(-400), 55))
        taken.take(sample(start + timedelta(seconds=2), 55))
        assert alarms(known) == [("raised", "BATTERY_POWER", 55)]
        configure(known, block(pBatMax=60.0))
        taken.measurements._alarms._checked_at = 0  # type: ignore[union-attr]
        taken.take(sample(start + timedelta(seconds=3), 55))
    assert [kind for kind, *_ in alarms(known)] == ["raised", "cleared"]


def test_what_was_measured_long_before_the_plan_is_not_judged_by_it(known: Site) -> None:
    configure(known)
    with intake(known) as taken:
        taken.take(sample(moment(-3600), 500))
    assert alarms(known) == []


def test_the_block_of_the_plant_s_wall_clock(known: Site) -> None:
    """Two zones, 14 hours apart: the same moment lies in different blocks."""
    zones = [ZoneInfo("Pacific/Kiritimati"), UTC]
    now = moment()
    hours = [now.astimezone(zone).hour for zone in zones]
    configure(known, *(block(f"{hour:02}:00", f"{hour + 1:02}:00", pBatMax=1.0 if hour == hours[0] else 50.0)
                       for hour in range(24)))  # fmt: skip
    with intake(known, clock=zones[1]) as taken:
        taken.take(sample(now, 20))
    assert alarms(known) == []
    with intake(known, clock=zones[0]) as taken:
        taken.take(sample(now + timedelta(milliseconds=1), 20))
    assert alarms(known) == [("raised", "BATTERY_POWER", 20)]


def test_an_error_of_ours_makes_no_dead_letters(known: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(known)
    start = moment(-60)

    def fail(error: Exception) -> None:
        def judge(*_: object) -> None:
            raise error

        monkeypatch.setattr(Alarms, "judge", judge)

    with intake(known) as taken:
        fail(ZeroDivisionError())
        taken.take(sample(start, 70))
        fail(OperationalError())
        with pytest.raises(OperationalError):
            taken.take(sample(start, 70))
        monkeypatch.undo()
        taken.take(sample(start, 70))  # it comes again
    assert known.rows("SELECT count(*) FROM telemetry") == [(1,)]
    assert alarms(known) == [("raised", "BATTERY_POWER", 70)]


def test_every_plant_has_an_alarm_of_its_own() -> None:
    assert PlantAlarm.create_id(UUID(int=1)) != PlantAlarm.create_id(UUID(int=2))
