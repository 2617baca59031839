"""The locked dependencies against the advisories of osv.dev: in `make audit`, since it takes a network."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from infra.serving import Serving

LOCK = Path(__file__).parent.parent / "requirements-test.lock"
"""It has all that the other lock has, and the extras."""
OSV = "https://api.osv.dev/v1/query"

Audit = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    def run(url: str) -> "subprocess.CompletedProcess[str]":
        options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--cache-dir", str(tmp_path)]
        command = [sys.executable, "-m", "pip_audit", "-r", str(LOCK), "-s", "osv", "--osv-url", url, "-f", "json"]
        return subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=300)

    return run


class Advisories:
    """A stand-in for osv.dev that knows of one hole."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.url = ""

    async def answer(self, request: Request) -> Response:
        name = (await request.json())["package"]["name"]
        self.asked.add(name)
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": [], "versions": []}]
        hole = {"id": "PYSEC-0", "summary": "A hole", "affected": affected}
        return JSONResponse({"vulns": [hole]} if name == "starlette" else {})


@pytest.fixture
def advisories() -> Iterator[Advisories]:
    made = Advisories()
    with Serving(Starlette(routes=[Route("/v1/query", made.answer, methods=["POST"])])) as serving:
        made.url = f"{serving.url}/v1/query"
        yield made


def holes(run: "subprocess.CompletedProcess[str]") -> list[str]:
    found: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    return [f"{each['name']} {each['version']}: {hole['id']}" for each in found for hole in each["vulns"]]


def test_the_audit_asks_about_every_dependency_and_finds_a_hole(audit: Audit, advisories: Advisories) -> None:
    run = audit(advisories.url)
    assert run.returncode == 1, run.stderr
    assert [hole.split(" ")[0] for hole in holes(run)] == ["starlette"]
    assert {"starlette", "psycopg", "pika", "cryptography", "pyjwt", "opentelemetry-sdk"} <= advisories.asked
    installed = {name.split("==")[0] for name in LOCK.read_text().splitlines() if "==" in name}
    assert advisories.asked <= installed


@pytest.mark.skipif("WATTLEDGER_AUDIT" not in os.environ, reason="`make audit` asks osv.dev; no test needs a network")
def test_no_dependency_has_a_known_hole(audit: Audit) -> None:
    run = audit(OSV)
    assert holes(run) == [], run.stderr
