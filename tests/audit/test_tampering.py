"""Whatever is done to stored rows is found, at the first bad position."""

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import Connection

from infra.audit.sealing_keys import sealing_keys
from infra.audit.seals import GENESIS, add, leaf, raw_events, seals_after
from infra.audit.verification import Trusted, verify
from tests.audit.conftest import IN_A_SEAL, SEALED, UNSEALED, Sealed

CHANGES = {
    "stream_id": "gen_random_uuid()",
    "version": "version + 1",
    "topic": "topic || ' '",
    "state": "set_byte(state, 3, get_byte(state, 3) # 1)",
    "event_id": "gen_random_uuid()",
    "metadata": """metadata || '{"actor": "nobody"}'""",
    "recorded_at": "recorded_at + interval '1 microsecond'",
}
MOVE_UP = "UPDATE events SET position = position - 1 WHERE position > {}"
MOVE_DOWN = "UPDATE events SET position = position + 1 WHERE position >= {}"
INSERT = (
    "INSERT INTO events SELECT {}, gen_random_uuid(), 1, topic, state, gen_random_uuid(), metadata, recorded_at"
    " FROM events WHERE position = 6"
)
SWAP = "UPDATE events SET position = {0} + {1} - position WHERE position IN ({0}, {1})"
SWAP_STATES = (
    "UPDATE events e SET state = o.state FROM events o WHERE (e.position, o.position) IN (({0}, {1}), ({1}, {0}))"
)


def test_an_untouched_log_is_intact(sealed: Sealed) -> None:
    found = sealed.verify()
    assert (found.intact, found.events, found.seals, found.unsealed) == (True, SEALED, 3, UNSEALED)
    assert found.trust == "operator"
    assert found.unsealed_since is not None


@pytest.mark.parametrize("position", [1, 6, SEALED])
@pytest.mark.parametrize("column", CHANGES)
def test_a_changed_event_is_found(sealed: Sealed, tampering: "Connection[Any]", column: str, position: int) -> None:
    execute(tampering, f"UPDATE events SET {column} = {CHANGES[column]} WHERE position = {position}")
    assert found(sealed, tampering) == (position, "the event was changed")


@pytest.mark.parametrize("column", [*CHANGES])
def test_an_emptied_column_is_found(sealed: Sealed, tampering: "Connection[Any]", column: str) -> None:
    execute(tampering, f"ALTER TABLE events ALTER {column} DROP NOT NULL")
    execute(tampering, f"UPDATE events SET {column} = NULL WHERE position = 7")
    assert found(sealed, tampering) == (7, "the event was changed")


@pytest.mark.parametrize(
    ("statements", "position", "what"),
    [
        (["UPDATE events SET position = 100 WHERE position = 6"], 6, "moved to position 100"),
        (["DELETE FROM events WHERE position = 1"], 1, "the event is missing"),
        (["DELETE FROM events WHERE position = 6"], 6, "the event is missing"),
        (["DELETE FROM events WHERE position = 12"], 12, "the event is missing"),
        (["DELETE FROM events WHERE position = 8", MOVE_UP.format(8)], 8, "missing, and the one of position 9"),
        ([MOVE_DOWN.format(6), INSERT.format(6).replace("= 6", "= 7")], 6, "an event was inserted"),
        ([MOVE_DOWN.format(8), INSERT.format(8)], 8, "inserted, and the one that belongs here moved to position 9"),
        ([INSERT.format(6)], 6, "two at this position"),
        ([INSERT.format(-5)], -5, "an event was inserted"),
        ([INSERT.format("-9223372036854775808")], -(2**63), "an event was inserted"),
        ([SWAP.format(3, 10)], 3, "the one here belongs at 10, and the right one is at 10"),
        ([SWAP.format(6, 7)], 6, "reordered"),
        ([SWAP_STATES.format(2, 11)], 2, "the event was changed"),
        (["TRUNCATE events"], 1, "the event is missing"),
        (["DELETE FROM events WHERE position > 5"], 6, "the event is missing"),
        (["DELETE FROM events WHERE position = 13"], 13, "not sealed yet is missing"),
        (["DELETE FROM events WHERE position > 9", "DELETE FROM seals WHERE number > 2"], 9, "sealed to position 12"),
    ],
)
def test_a_missing_inserted_or_moved_event_is_found(
    sealed: Sealed, tampering: "Connection[Any]", statements: list[str], position: int, what: str
) -> None:
    for statement in statements:
        execute(tampering, statement)
    where, said = found(sealed, tampering)
    assert where == position
    assert what in said


def test_an_event_without_a_position_is_found(sealed: Sealed, tampering: "Connection[Any]") -> None:
    execute(tampering, "ALTER TABLE events ALTER position DROP NOT NULL")
    execute(tampering, INSERT.format("NULL"))
    assert "inserted" in found(sealed, tampering)[1]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("number = 99", "seal 2 is missing"),
        ("first_position = 4", "seal 2 begins at 4, not at 5"),
        ("last_position = 9", "another length"),
        ("previous = sha256(previous)", "does not follow"),
        ("leaves = set_byte(leaves, 40, get_byte(leaves, 40) # 1)", "its digest is another"),
        ("leaves = substr(leaves, 1, 96)", "another length"),
        ("sealed_at = sealed_at + interval '1 microsecond'", "its digest is another"),
        ("sealed_at = 'infinity'", "lacks a value"),
        ("key = sha256(key)", "its digest is another"),
        ("digest = sha256(digest)", "its digest is another"),
        ("signature = set_byte(signature, 1, get_byte(signature, 1) # 1)", "the signature of seal 2 is wrong"),
        ("signature = ''", "the signature of seal 2 is wrong"),
    ],
)
def test_a_changed_seal_is_found(sealed: Sealed, tampering: "Connection[Any]", change: str, what: str) -> None:
    execute(tampering, f"UPDATE seals SET {change} WHERE number = 2")
    assert found(sealed, tampering)[0] == 5
    assert what in found(sealed, tampering)[1]


@pytest.mark.parametrize(
    ("statement", "position"),
    [
        ("DELETE FROM seals WHERE number = 1", 1),
        ("DELETE FROM seals WHERE number = 2", 5),
        ("DELETE FROM seals WHERE number = 3", 9),
        ("TRUNCATE seals", 1),
        ("UPDATE seals SET number = 5 - number WHERE number IN (2, 3)", 5),
        (
            "INSERT INTO seals SELECT 4, 13, 16, digest, leaves, sealed_at, key, digest, signature FROM seals LIMIT 1",
            13,
        ),
    ],
)
def test_a_missing_moved_or_inserted_seal_is_found(
    sealed: Sealed, tampering: "Connection[Any]", statement: str, position: int
) -> None:
    execute(tampering, statement)
    assert found(sealed, tampering)[0] == position


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sealing_keys SET public_key = sha256(public_key) WHERE number = 1",
        "UPDATE sealing_keys SET public_key = sha256(public_key) WHERE number = 2",
        "UPDATE sealing_keys SET endorsement = set_byte(endorsement, 0, 0), created_at = now() WHERE number = 1",
        "UPDATE sealing_keys SET created_at = created_at + interval '1 microsecond' WHERE number = 2",
        "UPDATE sealing_keys SET created_at = 'infinity' WHERE number = 1",
        "UPDATE sealing_keys SET number = 3 WHERE number = 2",
        "UPDATE sealing_keys SET sealed_private = sha256(sealed_private) WHERE number = 2",
        "DELETE FROM sealing_keys WHERE number = 1",
        "DELETE FROM sealing_keys WHERE number = 2",
        "TRUNCATE sealing_keys",
    ],
)
def test_a_changed_or_missing_key_is_found(sealed: Sealed, tampering: "Connection[Any]", statement: str) -> None:
    execute(tampering, statement)
    assert not sealed.verify(tampering).intact


def test_hashes_that_were_made_anew_lack_the_signature(sealed: Sealed, tampering: "Connection[Any]") -> None:
    execute(tampering, "UPDATE events SET state = 'null' WHERE position = 6")
    forge(tampering, None)
    assert found(sealed, tampering) == (5, "the signature of seal 2 is wrong")


def test_a_log_signed_anew_with_other_keys_is_found_by_the_operators_key_and_by_a_pinned_one(
    sealed: Sealed, tampering: "Connection[Any]"
) -> None:
    pinned = sealing_keys(tampering)[0].fingerprint
    execute(tampering, "UPDATE events SET state = 'null' WHERE position = 6")
    other = Ed25519PrivateKey.generate()
    forge(tampering, other)
    assert "not made with our secret keys" in found(sealed, tampering)[1]
    assert "pinned key is not among" in str(sealed.verify(tampering, pinned=pinned).what)


def test_an_anchor_finds_what_the_key_itself_signed_anew(sealed: Sealed, tampering: "Connection[Any]") -> None:
    """Whoever has the operator's key may sign whatever he likes, but not what somebody else has kept."""
    anchors = {seal.number: seal.digest for seal in seals_after(tampering, 0, 3)}
    assert sealed.verify(tampering, anchors=anchors).intact
    other = Ed25519PrivateKey.generate()
    execute(tampering, "UPDATE events SET state = 'null' WHERE position = 6")
    key = forge(tampering, other)
    assert sealed.verify(tampering, pinned=key).intact
    caught = sealed.verify(tampering, pinned=key, anchors={2: anchors[2]})
    assert (caught.position, caught.what) == (5, "seal 2 is not the one of the anchor")
    execute(tampering, "DELETE FROM events WHERE position > 4")
    execute(tampering, "DELETE FROM seals WHERE number > 1")
    execute(tampering, "DELETE FROM slots")
    assert sealed.verify(tampering, pinned=key).intact
    caught = sealed.verify(tampering, pinned=key, anchors={3: anchors[3]})
    assert (caught.position, caught.what) == (5, "seal 3 of the anchor is missing: the seals end at 1")


def test_slots_remember_events_that_were_taken_from_the_end(sealed: Sealed, tampering: "Connection[Any]") -> None:
    execute(tampering, "INSERT INTO slots (name, position) VALUES ('plants', 14)")
    assert sealed.verify(tampering).intact
    execute(tampering, "DELETE FROM events WHERE position > 12")
    assert found(sealed, tampering) == (13, "the log ends at 12, but the slot plants has read to 14")


def test_seals_may_be_believed_up_to_one(sealed: Sealed) -> None:
    with sealed.log.connect() as connection:
        trusted = Trusted(None, opens=True, anchors={})
        assert verify(connection, trusted, from_seal=3).events == IN_A_SEAL
        with pytest.raises(ValueError, match="no seal 4"):
            verify(connection, trusted, from_seal=5)


def test_seals_are_only_ever_added(sealed: Sealed) -> None:
    for statement in ("DELETE FROM seals", "UPDATE seals SET number = 9", "TRUNCATE seals"):
        with pytest.raises(Exception, match="only ever added"):
            sealed.log.execute(statement)


def found(sealed: Sealed, connection: "Connection[Any]") -> tuple[int | None, str]:
    answer = sealed.verify(connection)
    assert not answer.intact
    return answer.position, answer.what or ""


def execute(connection: "Connection[Any]", statement: str) -> None:
    cursor = connection.execute(statement.encode())
    assert cursor.rowcount != 0


def forge(connection: "Connection[Any]", key: Ed25519PrivateKey | None) -> bytes:
    """Makes all seals and hashes right again, and signs them with another key; its fingerprint."""
    known = sealing_keys(connection)
    fingerprint = known[0].fingerprint
    if key is not None:
        first = replace(known[0], public_key=key.public_key().public_bytes_raw())
        fingerprint = sha256(first.public_key).digest()
        connection.execute("DELETE FROM sealing_keys")
        connection.execute(
            "INSERT INTO sealing_keys VALUES (1, %s, %s, %s, %s)",
            (first.public_key, key.sign(first.endorsed()), first.created_at, known[-1].sealed_private),
        )
    previous = GENESIS
    seals = seals_after(connection, 0, 99)
    connection.execute("DELETE FROM seals")
    for seal in seals:
        rows = raw_events(connection, seal.first_position - 1, seal.last_position)
        leaves = b"".join([leaf(row) for row in rows])
        forged = replace(seal, leaves=leaves, previous=previous, key=fingerprint if key else seal.key)
        previous = forged.compute_digest()
        signature = key.sign(previous) if key else seal.signature
        add(connection, replace(forged, digest=previous, signature=signature))
    return fingerprint
