"""The window of a query: whole buckets, aligned to the UTC epoch, half-open."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import BadRequest
from projections.measurements import EPOCH, BadWindow, Window

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_the_default_is_the_last_24_hours_in_fives() -> None:
    now = NOON + timedelta(minutes=2)
    assert Window.of(now=now) == Window(NOON - timedelta(hours=24), NOON + timedelta(minutes=5), timedelta(minutes=5))


def test_a_naive_time_is_utc() -> None:
    naive = datetime(2026, 11, 1, 12)  # noqa: DTZ001
    berlin = datetime(2026, 11, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    assert Window.of(naive, now=NOON + timedelta(hours=1)) == Window.of(berlin, now=NOON + timedelta(hours=1))


@given(
    start=st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001
    length=st.timedeltas(timedelta(microseconds=1), timedelta(days=6)),
    minutes=st.integers(1, 60),
)
def test_a_range_is_widened_to_whole_buckets(start: datetime, length: timedelta, minutes: int) -> None:
    start = start.replace(tzinfo=UTC)
    window = Window.of(start, start + length, minutes)
    assert start - window.bucket < window.start <= start
    assert start + length <= window.end < start + length + window.bucket
    assert not (window.start - EPOCH) % window.bucket
    assert not (window.end - EPOCH) % window.bucket


@pytest.mark.parametrize(
    ("start", "end", "minutes"),
    [
        (NOON, NOON, 5),
        (NOON, NOON - timedelta(days=1), 5),
        (NOON, NOON + timedelta(days=1), 0),
        (NOON, NOON + timedelta(days=1), 61),
        (NOON, NOON + timedelta(minutes=10_001), 1),
        (NOON, datetime.max, 60),
        (datetime.max - timedelta(minutes=1), datetime.max, 60),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=2))), NOON, 60),
    ],
)
def test_a_window_that_cannot_be_is_refused(start: datetime, end: datetime, minutes: int) -> None:
    with pytest.raises(BadWindow) as caught:
        Window.of(start, end, minutes)
    assert isinstance(caught.value, BadRequest)
    assert isinstance(caught.value, ValueError)


def test_ten_thousand_buckets_are_allowed() -> None:
    window = Window.of(NOON, NOON + timedelta(minutes=10_000), 1)
    assert (window.end - window.start) // window.bucket == 10_000
