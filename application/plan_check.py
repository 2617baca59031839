"""What is wrong with a day plan that somebody wrote down, told by block and rule."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, tzinfo
from typing import Any

from pydantic import TypeAdapter, ValidationError

from domain.day_plan import MAX_BLOCKS, TimeBlock, minute, minutes_on, problems

BESIDE_THE_BLOCKS = frozenset({"validateOnly", "plantId", "version", "configEnabled", "esiState"})
"""What `POST` and `GET …/config` have beside `timeConfigs`."""

_FORM = TypeAdapter(list[TimeBlock])


@dataclass(frozen=True)
class Finding:
    """`block` counts from 1, None for the plan as a whole; `rule` is a short, stable name."""

    block: int | None
    times: str | None
    field: str | None
    rule: str
    message: str

    def __str__(self) -> str:
        which = f"block {self.block}" + (f" ({self.times})" if self.times else "") if self.block else "plan"
        return f"{which}: {self.field or 'it'} {self.message} [{self.rule}]"


@dataclass(frozen=True)
class PlanCheck:
    """What was found, and the blocks where they could be read."""

    findings: list[Finding]
    blocks: list[TimeBlock]


def check_plan(plan: Any) -> PlanCheck:
    """`plan` is decoded JSON: an array of blocks, or the body of a config change. How blocks go together is judged once
    each of them is well-formed."""
    strange = sorted(plan.keys() - BESIDE_THE_BLOCKS - {"timeConfigs"}) if isinstance(plan, dict) else []
    findings = [Finding(None, None, field, "unknown-field", "is no field of a plan") for field in strange]
    given = plan.get("timeConfigs") if isinstance(plan, dict) else plan
    if not isinstance(given, list):
        return PlanCheck([*findings, Finding(None, None, "timeConfigs", "form", "must be an array of blocks")], [])
    if not 1 <= len(given) <= MAX_BLOCKS:
        message = f"must have 1 to {MAX_BLOCKS} blocks, not {len(given)}"
        findings.append(Finding(None, None, "timeConfigs", "count", message))
    try:
        blocks = _FORM.validate_python(given)
    except ValidationError as error:
        return PlanCheck([*findings, *_of_form(error, given)], [])
    for problem in problems(blocks):
        _, number, field = problem.place.split(".")
        block = blocks[int(number)]
        times = f"{block.from_}-{block.to}"
        findings.append(Finding(int(number) + 1, times, field, problem.rule, problem.text))
    return PlanCheck(findings, blocks)


def clock_changes(blocks: list[TimeBlock], day: date, zone: tzinfo) -> list[str]:
    """A sentence for each block that lasts otherwise on a day than its times say."""
    told = []
    for number, (block, counted) in enumerate(zip(blocks, minutes_on(blocks, day, zone), strict=True), 1):
        usual = (24 * 60 if block.to == "23:59" else minute(block.to)) - minute(block.from_)
        if counted != usual:
            lasts = f"is in force for {counted} minutes instead of {usual}" if counted else "does not occur"
            told.append(f"block {number} ({block.from_}-{block.to}): {lasts} on {day}, when the clocks change")
    return told


def _of_form(error: ValidationError, given: list[Any]) -> Iterable[Finding]:
    rules = {"missing": "missing", "extra_forbidden": "unknown-field", "value_error": "clock"}
    bounds = {"greater_than_equal", "less_than_equal", "finite_number"}
    for each in error.errors(include_url=False, include_input=False):
        number, *fields = each["loc"]
        rule = "range" if each["type"] in bounds else rules.get(each["type"], "form")
        message = each["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        told = {"missing": "is missing", "extra_forbidden": "is no field of a block", "model_type": "must be an object"}
        message = told.get(each["type"], message)
        yield Finding(int(number) + 1, _times(given[int(number)]), str(fields[0]) if fields else None, rule, message)


def _times(block: Any) -> str | None:
    match block:
        case {"from": str(start), "to": str(end)}:
            return f"{start}-{end}"
    return None
