"""One thing that was looked at."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """`remedy` is what the operator does about it; a fault loses or refuses something, a warning soon may."""

    check: str
    verdict: Literal["ok", "warning", "fault"]
    found: str
    remedy: str = ""


def healthy(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def warning(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, "warning", found, remedy)


def fault(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, "fault", found, remedy)
