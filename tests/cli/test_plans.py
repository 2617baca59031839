"""Day plans checked from the command line."""

import json
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from application.plan_check import check_plan, clock_changes
from domain.day_plan import TimeBlock, minutes_on
from tests.cli.conftest import Run
from tests.examples import block

PRAGUE = ZoneInfo("Europe/Prague")
SPRING, AUTUMN, USUAL = date(2026, 3, 29), date(2026, 10, 25), date(2026, 6, 1)


def written(path: Path, plan: Any) -> str:
    file = path / "plan.json"
    file.write_text(plan if isinstance(plan, str) else json.dumps(plan))
    return str(file)


def blocks(*times: str) -> list[TimeBlock]:
    return [block(*each.split("-")) for each in times]


def said(plan: Any) -> list[str]:
    return [str(finding) for finding in check_plan(plan).findings]


def test_a_sound_plan(run: Run, tmp_path: Path) -> None:
    plan = [each.as_json() for each in blocks("00:00-06:00", "06:00-24:00")]
    for form in (plan, {"timeConfigs": plan}, {"plantId": "esm-1", "version": 3, "timeConfigs": plan}):
        assert run("plans", "check", written(tmp_path, form)) == "A sound plan of 2 blocks.\n"


def test_a_broken_plan_names_block_and_rule(run: Run, tmp_path: Path) -> None:
    plan = [block("00:00", "06:00").as_json(), block("05:00", "24:00", socMin=95).as_json()]
    file = written(tmp_path, {"timeConfigs": plan})
    assert run("plans", "check", file, status=1).splitlines() == [
        "block 2 (05:00-24:00): socMin must not exceed socMax [soc-band]",
        "block 2 (05:00-24:00): from overlaps the block 00:00-06:00 [overlap]",
    ]
    told = json.loads(run("plans", "check", file, "--json", status=1))
    assert (told["ok"], told["blocks"]) == (False, 2)
    assert told["findings"][1] == {
        "block": 2,
        "times": "05:00-24:00",
        "field": "from",
        "rule": "overlap",
        "message": "overlaps the block 00:00-06:00",
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"from": "6:00"}, "block 1 (6:00-24:00): from must be HH:MM between 00:00 and 23:59 (24:00 as the end of the"),
        ({"pBatMax": 100_001}, "block 1 (00:00-24:00): pBatMax must be less than or equal to 100000 [range]"),
        ({"socMin": -1}, "block 1 (00:00-24:00): socMin must be greater than or equal to 0 [range]"),
        ({"pBatMin": "5"}, "block 1 (00:00-24:00): pBatMin must be a valid number [form]"),
        ({"limit": 5}, "block 1 (00:00-24:00): limit is no field of a block [unknown-field]"),
        ({"pBatMin": 60}, "block 1 (00:00-24:00): pBatMin must not exceed pBatMax [power-band]"),
        ({"to": "00:00"}, "block 1 (00:00-00:00): from must be before `to` [order]"),
        ({"from": "24:00"}, "block 1 (24:00-24:00): from must be before the end of the day [day-end]"),
    ],
)
def test_each_rule_is_told(changes: dict[str, Any], says: str) -> None:
    (finding,) = said([block().as_json() | changes])
    assert finding.startswith(says)


def test_what_is_missing_or_no_plan_is_told() -> None:
    assert said([{"from": "00:00", "to": "24:00", "pBatMin": 1, "pBatMax": 2, "socMin": 3}]) == [
        "block 1 (00:00-24:00): socMax is missing [missing]"
    ]
    assert said([block("00:00", "06:00").as_json(), 7]) == ["block 2: it must be an object [form]"]
    assert said([{**block().as_json(), "from": None}]) == ["block 1: from must be a valid string [form]"]
    assert said([]) == ["plan: timeConfigs must have 1 to 96 blocks, not 0 [count]"]
    assert said({"timeConfigs": {}}) == said(7) == ["plan: timeConfigs must be an array of blocks [form]"]
    assert said({"timeConfigs": [block().as_json()], "force": 1}) == [
        "plan: force is no field of a plan [unknown-field]"
    ]
    assert said([block("00:00", "06:00").as_json(), block("07:00", "24:00").as_json()]) == [
        "block 2 (07:00-24:00): from leaves a gap after the block 00:00-06:00 [gap]"
    ]


@pytest.mark.parametrize("content", ["", "{", "not json", "\ufeff["])
def test_what_is_no_json_is_one_line(run: Run, tmp_path: Path, content: str) -> None:
    assert run("plans", "check", written(tmp_path, content), status=2).count("\n") == 1
    assert run("plans", "check", str(tmp_path / "absent.json"), status=2).count("\n") == 1


# --- days on which the clocks change
def test_a_usual_day_has_1440_minutes() -> None:
    plan = blocks("00:00-02:00", "02:00-03:00", "03:00-23:59")
    assert minutes_on(plan, USUAL, PRAGUE) == [120, 60, 1260]
    assert clock_changes(plan, USUAL, PRAGUE) == []


def test_a_day_of_23_hours_skips_a_block() -> None:
    plan = blocks("00:00-02:00", "02:00-03:00", "03:00-24:00")
    assert minutes_on(plan, SPRING, PRAGUE) == [120, 0, 1260]
    assert clock_changes(plan, SPRING, PRAGUE) == [
        "block 2 (02:00-03:00): does not occur on 2026-03-29, when the clocks change"
    ]
    assert minutes_on(blocks("00:00-02:30", "02:30-24:00"), SPRING, PRAGUE) == [120, 1260]
    assert sum(minutes_on(blocks("00:00-24:00"), SPRING, PRAGUE)) == 23 * 60


def test_a_day_of_25_hours_has_an_hour_twice() -> None:
    assert minutes_on(blocks("00:00-02:00", "02:00-03:00", "03:00-24:00"), AUTUMN, PRAGUE) == [120, 120, 1260]
    # Each of the two comes, goes, and comes again.
    split = blocks("00:00-02:30", "02:30-24:00")
    assert minutes_on(split, AUTUMN, PRAGUE) == [180, 1320]
    assert clock_changes(split, AUTUMN, PRAGUE)[0] == (
        "block 1 (00:00-02:30): is in force for 180 minutes instead of 150 on 2026-10-25, when the clocks change"
    )


def test_a_day_is_the_plants_own() -> None:
    """In Beirut the clocks change at midnight: 29 March 2026 has no 00:30 there."""
    plan = blocks("00:00-01:00", "01:00-24:00")
    assert minutes_on(plan, SPRING, ZoneInfo("Asia/Beirut")) == [0, 1380]
    assert minutes_on(plan, SPRING, ZoneInfo("UTC")) == [60, 1380]


def test_the_command_tells_of_a_day(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTLEDGER_PLANT_TIME_ZONE", "Europe/Prague")
    plan = [each.as_json() for each in blocks("00:00-02:00", "02:00-03:00", "03:00-24:00")]
    file = written(tmp_path, plan)
    assert run("plans", "check", file, "--on", "2026-03-29").startswith("block 2 (02:00-03:00): does not occur")
    assert len(json.loads(run("plans", "check", file, "--on", "2026-10-25", "--json"))["clockChanges"]) == 1
    assert run("plans", "check", file, "--on", "2026-06-01") == "A sound plan of 3 blocks.\n"
    assert "23 hours" in " ".join(run("plans", "check", "--help").split())
