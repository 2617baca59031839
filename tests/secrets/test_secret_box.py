"""What is sealed opens where it belongs, and nowhere else; what is forgotten opens nowhere."""

from base64 import b64encode
from typing import Any
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from psycopg import Connection

from infra.operator_keys import OperatorKey, WeakKey
from infra.secret_box import HmacKeyHasher
from tests.examples import ACME, RIVAL
from tests.secrets.conftest import Box

SECRET = "canary-secret-5f1d"


def test_a_secret_is_sealed_and_opened(box: Box, old: OperatorKey, connection: Connection[Any]) -> None:
    assert box(old).seal(ACME, "esm", SECRET) == 1
    assert box(old).seal(ACME, "esm", "another") == 2
    assert box(old).open(ACME, "esm", 1) == SECRET
    stored = connection.execute("SELECT sealed FROM secrets UNION ALL SELECT wrapped_key FROM organisation_keys")
    assert not any(SECRET.encode() in each for (each,) in stored)


@pytest.mark.parametrize(("where", "field", "version"), [(RIVAL, "esm", 1), (ACME, "other", 1), (ACME, "esm", 2)])
def test_a_row_that_is_moved_does_not_open(
    box: Box, old: OperatorKey, connection: Connection[Any], where: UUID, field: str, version: int
) -> None:
    process = box(old)
    process.seal(ACME, "esm", SECRET)
    process.seal(RIVAL, "unrelated", SECRET)
    connection.execute(
        "UPDATE secrets SET organization_id = %s, field = %s, version = %s WHERE field = 'esm'", (where, field, version)
    )
    with pytest.raises(InvalidTag):
        process.open(where, field, version)


def test_a_data_key_that_is_moved_does_not_open(box: Box, old: OperatorKey, connection: Connection[Any]) -> None:
    process = box(old)
    process.seal(ACME, "esm", SECRET)
    connection.execute("UPDATE organisation_keys SET organization_id = %s", [RIVAL])
    connection.execute("UPDATE secrets SET organization_id = %s", [RIVAL])
    with pytest.raises(WeakKey, match="not the one"):
        process.open(RIVAL, "esm", 1)


def test_what_is_not_there_is_a_key_error(box: Box, old: OperatorKey) -> None:
    with pytest.raises(KeyError):
        box(old).open(ACME, "esm", 1)


def test_a_forgotten_version_is_gone_and_its_number_never_given_again(box: Box, old: OperatorKey) -> None:
    process = box(old)
    for secret in ("first-secret", "second-secret", "third-secret"):
        process.seal(ACME, "esm", secret)
    process.seal(ACME, "other", SECRET)
    process.forget(ACME, "esm", 2)
    for version in (1, 2):
        with pytest.raises(KeyError):
            process.open(ACME, "esm", version)
    assert process.open(ACME, "esm", 3) == "third-secret"
    assert process.open(ACME, "other", 1) == SECRET
    process.forget(ACME, "esm", 3)
    assert process.seal(ACME, "esm", SECRET) == 4


def test_an_organisation_that_is_forgotten_leaves_no_key(
    box: Box, old: OperatorKey, connection: Connection[Any]
) -> None:
    process = box(old)
    process.seal(ACME, "esm", SECRET)
    process.seal(RIVAL, "esm", SECRET)
    ((sealed,),) = connection.execute("SELECT sealed FROM secrets WHERE organization_id = %s", [ACME]).fetchall()
    process.forget_all(ACME)
    assert connection.execute("SELECT DISTINCT organization_id FROM organisation_keys").fetchall() == [(RIVAL,)]
    with pytest.raises(KeyError):
        process.open(ACME, "esm", 1)
    assert process.open(RIVAL, "esm", 1) == SECRET
    assert process.seal(ACME, "esm", "fresh-secret") == 2
    assert process.open(ACME, "esm", 2) == "fresh-secret"
    # Not even from a backup of the sealed row.
    connection.execute("UPDATE secrets SET sealed = %s WHERE organization_id = %s AND version = 1", (sealed, ACME))
    with pytest.raises(InvalidTag):
        process.open(ACME, "esm", 1)


# --- the hashes of API keys
def test_hashes_of_one_installation_agree_and_of_two_differ(box: Box, old: OperatorKey) -> None:
    one, other = HmacKeyHasher(box(old)), HmacKeyHasher(box(old))
    assert one.matches("key", other.hash("key"))
    assert not one.matches("Key", other.hash("key"))
    derived = HKDF(SHA256(), 32, salt=None, info=b"wattledger api keys").derive(old.key)
    assert box(old).pepper() != derived


def test_where_keys_were_minted_before_their_hashes_stay_valid(box: Box, old: OperatorKey, new: OperatorKey) -> None:
    """The pepper was derived from the oldest operator key; it is sealed as it was, and then outlives that key."""
    process = box(new, old)
    process.seal(ACME, "signing-key", SECRET)
    derived = HKDF(SHA256(), 32, salt=None, info=b"wattledger api keys").derive(old.key)
    assert process.pepper() == derived
    assert box(new).pepper() == derived


# --- the operator's keys
@pytest.mark.parametrize(
    "text",
    [
        *("", "k", "k:", ":" + "A" * 43 + "=", "k:c2hvcnQ=", "k:" + "A" * 43 + "=", "k:not base64", "k:" + "é" * 44),
        f"k:{b64encode(b'Correct horse, battery staple! 1').decode()}",
    ],
)
def test_a_weak_key_is_refused(text: str) -> None:
    with pytest.raises(WeakKey, match="wattledger secrets generate"):
        OperatorKey.parse_all(text)


def test_two_keys_under_one_id_are_refused(old: OperatorKey) -> None:
    with pytest.raises(WeakKey, match="same id"):
        OperatorKey.parse_all(f"{old},{OperatorKey(old.id, OperatorKey.random().key)}")


def test_a_box_needs_a_key(box: Box) -> None:
    with pytest.raises(WeakKey):
        box()


def test_a_key_is_not_in_its_repr(old: OperatorKey) -> None:
    assert repr(old) == f"OperatorKey({old.id})"
