"""`wattledger audit`: what auditors see, and what scripts get."""

import json
import subprocess
import sys
from pathlib import Path

import psycopg

from tests.cli.conftest import Run


def test_an_auditor_verifies_takes_a_bundle_home_and_finds_what_is_changed(
    run: Run,
    database_url: str,
    tmp_path: Path,
) -> None:
    assert "Nothing is sealed yet" in run("audit", "verify")
    run("orgs", "create", "acme")
    run("plants", "register", "acme", "plant-7")
    run("orgs", "create", "bolt")
    made = json.loads(run("audit", "export", str(tmp_path / "all.zip"), "--json"))[0]
    found = json.loads(run("audit", "verify", "--json"))
    assert (found["intact"], found["events"], found["unsealed"]) == (True, made["events"], 0)
    assert (found["trust"], found["anchor"]) == ("operator", made["anchor"])

    first = json.loads(run("audit", "keys", "--json"))[0]
    second = json.loads(run("audit", "rotate-key", "--json"))[0]
    assert (first["seals"], second["seals"], second["number"]) == (True, True, 2)
    assert [key["seals"] for key in json.loads(run("audit", "keys", "--json"))] == [False, True]
    (tmp_path / "kept").write_text(made["anchor"])
    kept = ("--public-key", first["fingerprint"], "--anchor", str(tmp_path / "kept"))
    assert "The key that you named" in run("audit", "verify", *kept)

    ours = json.loads(run("audit", "export", str(tmp_path / "acme"), "--organisation", "acme", "--json"))[0]
    assert 0 < ours["events"] < made["events"]
    script = str(tmp_path / "acme" / "verify.py")
    assert subprocess.run([sys.executable, "-I", script], check=True, capture_output=True).stdout.startswith(b"Intact")
    assert "is there already" in run("audit", "export", str(tmp_path / "acme"), status=2)

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE events SET topic = 'plant:linked' WHERE position = 4")
    assert "TAMPERED at position 4 (seal 1): the event was changed" in run("audit", "verify", status=1)
    assert json.loads(run("audit", "verify", "--json", status=1))["position"] == 4


def test_wrong_usage_is_told_from_tampering(run: Run) -> None:
    for words in (("--anchor", "nothing"), ("--public-key", "nothing"), ("--from-seal", "7")):
        run("audit", "verify", *words, status=2)
