"""The rules between the time blocks of a day plan."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given as for_any
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.day_plan import TimeBlock, minute, problems
from tests.examples import block

DAY = 24 * 60


def found(*blocks: TimeBlock) -> list[str]:
    return [str(problem) for problem in problems(blocks)]


def clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def plan(cuts: Sequence[int]) -> list[TimeBlock]:
    """Blocks from each cut to the next, in minutes since midnight."""
    return [block(clock(start), clock(end)) for start, end in pairwise(cuts)]


def partitions(least_blocks: int = 1) -> st.SearchStrategy[list[int]]:
    """Cuts of a whole day into 1-96 blocks; none at 23:59, which counts as the day's end."""
    inner = st.sets(st.integers(1, DAY - 2), min_size=least_blocks - 1, max_size=95)
    return inner.map(lambda cuts: [0, *sorted(cuts), DAY])


# --- one block
@pytest.mark.parametrize(
    "time", ["24:01", "25:00", "9:00", "09:60", "09.00", "0900", "", "09:00:00", "\u0660\u0669:\u0660\u0660", "09:00\n"]
)
@pytest.mark.parametrize("end", ["from", "to"])
def test_times_are_hh_mm(time: str, end: str) -> None:
    with pytest.raises(ValidationError, match="must be HH:MM"):
        TimeBlock.model_validate(block().as_json() | {end: time})


@pytest.mark.parametrize("field", ["from", "to", "pBatMin", "pBatMax", "socMin", "socMax"])
def test_all_six_fields_are_required(field: str) -> None:
    fields = {name: value for name, value in block().as_json().items() if name != field}
    with pytest.raises(ValidationError, match="Field required"):
        TimeBlock.model_validate(fields)


@pytest.mark.parametrize(
    "change",
    [
        {"pBatMax": 100_000.1},
        {"pBatMin": -100_000.1},
        {"pBatMax": float("inf")},
        {"pBatMin": float("nan")},
        {"pBatMax": "50"},
        {"pBatMax": True},
        {"pBatMax": None},
        {"socMin": -0.1},
        {"socMax": 100.1},
        {"socMax": float("nan")},
        {"from": 0},
        {"to": None},
        {"reserve": 1},
    ],
    ids=str,
)
def test_what_no_block_may_hold(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TimeBlock.model_validate(block().as_json() | change)


def test_the_bounds_themselves_are_allowed() -> None:
    widest: dict[str, Any] = {"pBatMin": -100_000, "pBatMax": 100_000, "socMin": 0, "socMax": 100}
    assert found(block(**widest)) == []
    assert found(block(pBatMin=5, pBatMax=5, socMin=50, socMax=50)) == []


def test_power_and_charge_bands_are_in_order() -> None:
    assert found(block(pBatMin=1, pBatMax=0)) == ["timeConfigs.0.pBatMin: must not exceed pBatMax"]
    assert found(block(socMin=51, socMax=50)) == ["timeConfigs.0.socMin: must not exceed socMax"]


@pytest.mark.parametrize(("start", "end"), [("06:00", "06:00"), ("06:00", "05:59"), ("06:00", "00:00")])
def test_a_block_begins_before_it_ends(start: str, end: str) -> None:
    assert found(block(start, end)) == ["timeConfigs.0.from: must be before `to`"]


def test_no_block_begins_at_24_00() -> None:
    assert found(block("24:00", "24:00")) == ["timeConfigs.0.from: must be before the end of the day"]


def test_a_block_is_written_with_the_apis_names() -> None:
    assert list(block().as_json()) == ["from", "to", "pBatMin", "pBatMax", "socMin", "socMax"]


# --- blocks among themselves
def test_a_sound_day() -> None:
    assert found(block("00:00", "06:00"), block("06:00", "24:00")) == []


def test_a_plan_need_not_fill_the_day() -> None:
    assert found(block("06:00", "08:00"), block("08:00", "10:00")) == []


@pytest.mark.parametrize("end", ["23:59", "24:00"])
def test_both_ends_of_the_day_are_ends(end: str) -> None:
    assert found(block("00:00", "22:00"), block("22:00", end)) == []


def test_a_block_of_no_length_at_the_days_end_is_none() -> None:
    assert found(block("23:59", "23:59")) == ["timeConfigs.0.from: must be before `to`"]


def test_nothing_follows_23_59() -> None:
    assert found(block("00:00", "23:59"), block("23:59", "24:00")) == [
        "timeConfigs.1.from: overlaps the block 00:00-23:59"
    ]


def test_unordered_blocks_are_judged_in_their_order_of_day() -> None:
    assert found(block("12:00", "24:00"), block("00:00", "12:00")) == []
    assert found(block("12:00", "24:00"), block("00:00", "11:00")) == [
        "timeConfigs.0.from: leaves a gap after the block 00:00-11:00"
    ]


def test_an_overlap_is_found() -> None:
    assert found(block("00:00", "06:01"), block("06:00", "24:00")) == [
        "timeConfigs.1.from: overlaps the block 00:00-06:01"
    ]


def test_what_lies_in_an_earlier_block_overlaps_it_and_leaves_no_gap() -> None:
    assert found(block("00:00", "24:00"), block("01:00", "02:00"), block("03:00", "04:00")) == [
        "timeConfigs.1.from: overlaps the block 00:00-24:00",
        "timeConfigs.2.from: overlaps the block 00:00-24:00",
    ]


def test_a_block_given_twice_overlaps() -> None:
    assert found(block(), block()) == ["timeConfigs.1.from: overlaps the block 00:00-24:00"]


def test_every_problem_is_told() -> None:
    broken = (block("00:00", "06:00", pBatMin=1, pBatMax=0, socMin=2, socMax=1), block("07:00", "06:00"))
    assert [text.split(":")[0] for text in found(*broken)] == [
        "timeConfigs.0.pBatMin",
        "timeConfigs.0.socMin",
        "timeConfigs.1.from",
        "timeConfigs.1.from",
    ]


def test_96_quarters_of_an_hour_are_a_plan() -> None:
    assert found(*plan(range(0, DAY + 1, 15))) == []


@for_any(partitions(), st.randoms(use_true_random=False))
def test_any_partition_of_a_day_is_sound_in_any_order(cuts: list[int], random: Any) -> None:
    blocks = plan(cuts)
    random.shuffle(blocks)
    assert found(*blocks) == []


@for_any(partitions(least_blocks=2), st.data())
def test_any_block_that_is_moved_into_another_or_away_from_it_is_found(cuts: list[int], data: st.DataObject) -> None:
    blocks = plan(cuts)
    number = data.draw(st.integers(0, len(blocks) - 2))
    cut = cuts[number + 1]
    moved = data.draw(st.integers(cuts[number] + 1, DAY).filter(lambda end: end not in (cut, DAY - 1)))
    blocks[number] = block(clock(cuts[number]), clock(moved))
    assert any(("overlaps" if moved > cut else "leaves a gap") in text for text in found(*blocks))


@for_any(partitions(least_blocks=3), st.data())
def test_any_block_that_is_left_out_or_doubled_is_found(cuts: list[int], data: st.DataObject) -> None:
    blocks = plan(cuts)
    number = data.draw(st.integers(1, len(blocks) - 2))
    assert any("overlaps" in text for text in found(*blocks, blocks[number]))
    del blocks[number]
    assert any("leaves a gap" in text for text in found(*blocks))


@for_any(st.integers(0, DAY))
def test_minutes_of_the_day(minutes: int) -> None:
    assert minute(clock(minutes)) == minutes
