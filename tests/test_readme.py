"""The README says what is so: its tables are compared with the code they speak of."""

import re
from pathlib import Path

import pytest

from infra.settings import Settings
from interfaces.http.credentials import Right
from interfaces.http.endpoints import ENDPOINTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NEEDS = {
    Right.READ: "VIEWER or `trading:read`",
    Right.WRITE: "OPERATOR or `trading:write`",
    Right.ADMIN: "ORG_ADMIN or `trading:admin`",
    Right.AUDIT: "ORG_ADMIN or `trading:audit`",
}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_told(name: str) -> None:
    field = Settings.model_fields[name]
    default = "" if field.default in {None, ""} else f"`{field.default}`"
    assert f"| `WATTLEDGER_{name.upper()}` | {default} | {field.description} |" in README


def test_no_setting_is_told_that_is_not() -> None:
    told = {name.lower() for name in re.findall(r"^\| `WATTLEDGER_(\w+)`", README, re.MULTILINE)}
    assert told == set(Settings.model_fields)


def test_the_endpoints_are_told_with_what_they_need() -> None:
    told = re.findall(r"^\| `((?:GET|POST) /\S+)` \| (.+) \|$", README, re.MULTILINE)
    assert told == [(f"{endpoint.method} {endpoint.path}", NEEDS[endpoint.right]) for endpoint in ENDPOINTS]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
