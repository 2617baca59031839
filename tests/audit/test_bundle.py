"""Bundles: what a third party finds in one with the script in it, and that he finds whatever was done to it."""

import json
import shutil
import subprocess
import sys
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID
from zipfile import ZipFile

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.plant import Plant
from infra.audit.export import Selection, export
from infra.audit.seals import framed
from tests.audit.conftest import SEALED, Sealed
from tests.event_log.conftest import ORGANISATION

script: Any = import_module("infra.audit.verify_bundle")

OTHER = UUID(int=77)


@pytest.fixture(scope="module")
def bundle(sealed: Sealed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(sealed, tmp_path_factory.mktemp("bundle") / "bundle")


def exported(sealed: Sealed, to: Path, **selection: Any) -> Path:
    with sealed.log.connect() as connection:
        export(connection, sealed.keys(), to, Selection(**selection))
    return to


@pytest.mark.parametrize("pure", [True, False])
def test_the_script_in_it_finds_it_intact(bundle: Path, pure: bool) -> None:
    found = run(bundle / "verify.py", *["--pure"] * pure)
    assert f"Intact: {SEALED} events" in found.stdout
    assert "only the bundle itself vouches for" in found.stdout
    assert found.returncode == 0


def test_it_is_the_log_word_for_word(sealed: Sealed, bundle: Path) -> None:
    rows = sealed.log.execute(
        "SELECT position, state, metadata::text FROM events WHERE position <= 12 ORDER BY position"
    )
    lines = [json.loads(line) for line in (bundle / "events.ndjson").read_text().splitlines()]
    assert [(line["position"], line["state"].encode(), line["metadata"]) for line in lines] == rows
    assert json.loads((bundle / "catalogue.json").read_text())[0]["schema"]
    assert "Exit status" in (bundle / "README.md").read_text()


def test_a_zip_file_is_as_good_and_no_byte_of_it_may_change(sealed: Sealed, tmp_path: Path) -> None:
    path = exported(sealed, tmp_path / "bundle.zip")
    assert run(script.__file__, path).returncode == 0
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    assert run(script.__file__, path).returncode == 1


def test_keys_and_anchors_are_taken_from_words_and_files(bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    public_key = json.loads((bundle / "keys.json").read_text())[0]["publicKey"]
    pinned = sha256(bytes.fromhex(public_key)).hexdigest()
    (tmp_path / "key").write_text(f"the key is {pinned}\n")
    anchor = manifest["anchor"]
    assert "the key that you named" in run(script.__file__, bundle, "--public-key", pinned, "--anchor", anchor).stdout
    assert run(script.__file__, bundle, "--public-key", tmp_path / "key").returncode == 0
    assert "pinned key is not" in run(script.__file__, bundle, "--public-key", "0" * 64).stdout
    assert "anchor" in run(script.__file__, bundle, "--anchor", "0" * 64 + "@2").stdout
    assert "seal 9 of the anchor is missing" in run(script.__file__, bundle, "--anchor", "0" * 64 + "@9").stdout
    assert run(script.__file__, bundle, "--anchor", "nothing").returncode == 2


FILES = (
    "events.ndjson",
    "seals.ndjson",
    "keys.json",
    "catalogue.json",
    "verify.py",
    "README.md",
    "manifest.json",
    "manifest.sig",
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(name=st.sampled_from(FILES), place=st.floats(0, 0.9999), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_wherever_it_is(bundle: Path, name: str, place: float, bit: int) -> None:
    path = bundle / name
    before = path.read_bytes()
    changed = bytearray(before)
    changed[int(place * len(before))] ^= 1 << bit
    path.write_bytes(changed)
    try:
        # A signature may be written in capitals, which changes nothing that it says.
        if name != "manifest.sig" or changed.lower() != before.lower():
            with pytest.raises(Exception):  # noqa: B017, PT011 - main() says of each that it is tampered with
                script.check(bundle)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("events.ndjson", lambda lines: lines[:5] + lines[6:], "position 6: the event is missing"),
        ("events.ndjson", lambda lines: lines[:-1], "position 12: the event is missing"),
        ("events.ndjson", lambda lines: [*lines, lines[0]], "position 1: no seal has it"),
        (
            "events.ndjson",
            lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]],
            "position 6: the event is missing",
        ),
        ("events.ndjson", lambda lines: [*lines[:6], *lines[5:]], "position 7: the event is missing"),
        ("events.ndjson", lambda lines: [line.replace("test", "toast") for line in lines], "position 1: the event was"),
        ("seals.ndjson", lambda lines: lines[1:], "seal 1 is missing"),
        ("seals.ndjson", lambda lines: [lines[0], lines[2]], "seal 2 is missing"),
        ("seals.ndjson", lambda lines: lines[:-1], "position 9: no seal has it"),
        ("seals.ndjson", lambda lines: [lines[1], lines[0], lines[2]], "seal 1 is missing"),
    ],
    ids=[
        "missing",
        "last",
        "appended",
        "swapped",
        "twice",
        "changed",
        "seal",
        "mid-seal",
        "last-seal",
        "swapped-seals",
    ],
)
def test_missing_swapped_and_repeated_lines_are_named(
    bundle: Path, tmp_path: Path, name: str, change: Any, what: str
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    lines = (copy / name).read_text().splitlines(keepends=True)
    (copy / name).write_text("".join(change(lines)))
    found = run(script.__file__, copy)
    assert found.returncode == 1
    assert what in found.stdout


@pytest.mark.parametrize("name", FILES)
def test_missing_and_added_files_are_found(bundle: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "more.txt").touch()
    with pytest.raises(script.Tampered, match="added or removed"):
        script.check(copy)
    (copy / "more.txt").unlink()
    (copy / name).unlink()
    with pytest.raises((script.Tampered, OSError)):
        script.check(copy)


def test_keys_that_were_replaced_are_found_only_by_a_pinned_key_or_an_anchor(bundle: Path, tmp_path: Path) -> None:
    """What the script says when it has neither."""
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    first = sha256(bytes.fromhex(json.loads((bundle / "keys.json").read_text())[0]["publicKey"])).hexdigest()
    kept = json.loads((bundle / "seals.ndjson").read_text().splitlines()[1])
    sign_anew(copy)
    assert "only the bundle itself vouches for" in script.check(copy)
    with pytest.raises(script.Tampered, match="pinned key"):
        script.check(copy, pinned=first)
    with pytest.raises(script.Tampered, match=r"seal 2 .* anchor"):
        script.check(copy, anchors={2: kept["digest"]})


def test_one_organisations_bundle_shows_no_other_event_and_proves_its_own(sealed: Sealed, tmp_path: Path) -> None:
    sealed.log.save(Plant(organization_id=OTHER, external_plant_id="hidden", name="Secret hideout"))
    sealed.log.plant("Ours")
    sealed.sealer().catch_up()
    both = sealed.log.end()
    copy = exported(sealed, tmp_path / "ours", organization_id=ORGANISATION)
    assert script.check(copy).startswith(f"Intact: {both - 1} events")
    assert not any(
        b"hideout" in path.read_bytes() or str(OTHER).encode() in path.read_bytes() for path in copy.iterdir()
    )
    other = exported(sealed, tmp_path / "other.zip", organization_id=OTHER)
    with ZipFile(other) as opened:
        assert [json.loads(line)["position"] for line in opened.open("events.ndjson")] == [both - 1]
    assert "Intact: 1 events" in run(script.__file__, other).stdout


def test_a_bundle_of_some_time_has_its_events_and_all_seals_over_them(sealed: Sealed, tmp_path: Path) -> None:
    times = [row[0] for row in sealed.log.execute("SELECT recorded_at FROM events ORDER BY position")]
    position = next(p for p in range(8, 13) if times[p - 1] > times[p - 2])
    copy = exported(sealed, tmp_path / "some", since=times[position - 1], until=times[SEALED])
    lines = [json.loads(line)["position"] for line in (copy / "events.ndjson").read_text().splitlines()]
    assert lines == list(range(position, SEALED + 1))
    assert script.check(copy).startswith(f"Intact: {len(lines)} events")


def test_an_export_that_fails_leaves_nothing(sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.audit.export.catalogue", lambda: 1 / 0)
    for name in ("bundle", "bundle.zip"):
        with pytest.raises(ZeroDivisionError):
            exported(sealed, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_our_ed25519_is_that_of_the_standard() -> None:
    for number in range(5):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        public, message = key.public_key().public_bytes_raw(), b"message" * number
        signature = bytearray(key.sign(message))
        assert script.ed25519_verify(public, bytes(signature), message)
        assert not script.ed25519_verify(public, bytes(signature), message + b".")
        signature[number * 12] ^= 1
        assert not script.ed25519_verify(public, bytes(signature), message)
    # RFC 8032, 7.1, test 2
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    right = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert script.ed25519_verify(public, right, b"\x72")


def sign_anew(copy: Path) -> None:
    """As one would who has no key of ours but changes all that he can."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    fingerprint = sha256(public).hexdigest()
    endorsement = key.sign(framed(b"wattledger sealing key 1", script.int8(1), public, script.int8(0)))
    row = {"number": 1, "publicKey": public.hex(), "endorsement": endorsement.hex(), "madeAt": 0}
    (copy / "keys.json").write_text(json.dumps([row]))
    events = [json.loads(line) for line in (copy / "events.ndjson").read_text().splitlines()]
    events[5]["state"] = "null"
    (copy / "events.ndjson").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    previous, seals = "00" * 32, []
    for seal in [json.loads(line) for line in (copy / "seals.ndjson").read_text().splitlines()]:
        leaves = b"".join(script.leaf(each) for each in events[seal["firstPosition"] - 1 : seal["lastPosition"]])
        seal |= {"previous": previous, "leaves": leaves.hex(), "key": fingerprint}
        numbers = (seal["number"], seal["firstPosition"], seal["lastPosition"], seal["sealedAt"])
        parts = (*map(script.int8, numbers), bytes.fromhex(previous), bytes.fromhex(fingerprint), leaves)
        digest = sha256(framed(b"wattledger seal 1", *parts)).digest()
        previous = digest.hex()
        seals.append(seal | {"digest": previous, "signature": key.sign(digest).hex()})
    (copy / "seals.ndjson").write_text("".join(f"{json.dumps(seal)}\n" for seal in seals))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["anchor"] = f"{previous}@{seals[-1]['number']}"
    manifest["files"] = {name: sha256((copy / name).read_bytes()).hexdigest() for name in manifest["files"]}
    text = json.dumps(manifest).encode()
    (copy / "manifest.json").write_bytes(text)
    signature = key.sign(framed(b"wattledger bundle 1", text)).hex()
    (copy / "manifest.sig").write_text(json.dumps({"key": fingerprint, "signature": signature}))


def run(path: Any, *words: Any) -> "subprocess.CompletedProcess[str]":
    """In a bare Python: what the script needs must be in it."""
    command = [sys.executable, "-I", str(path), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
