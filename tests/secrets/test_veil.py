"""What is veiled can be read by its organisation alone, and by nobody once that is erased."""

from base64 import urlsafe_b64decode
from contextlib import suppress
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection

from application.ports import VEILED
from domain.errors import OrgMembershipRequired
from infra.operator_keys import OperatorKey
from infra.veil import Veils
from tests.examples import ACME, RIVAL
from tests.secrets.conftest import Box
from tests.worker.site import until

NAME = "Jana Nováková, Dlouhá 12"


@given(st.text(), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_any_words_come_back_and_only_by_their_key(words: str, key: bytes, other: bytes) -> None:
    veils = Veils(key)
    veiled = veils.veil(words)
    assert veils.veil(words) == veiled == veils.veil(veiled)
    if not words.startswith(VEILED):
        assert veils.unveil(veiled) == words
    if key != other:
        assert Veils(other).unveil(veiled) == veiled


@pytest.mark.parametrize("words", ["", "plain", VEILED, f"{VEILED}x", f"{VEILED}é", f"{VEILED}{'A' * 40}"])
def test_what_is_not_veiled_stays_as_it_is(words: str) -> None:
    assert Veils(bytes(32)).unveil(words) == words


def test_a_changed_veil_does_not_open() -> None:
    veils = Veils(bytes(range(32)))
    veiled = veils.veil(NAME)
    for place in range(len(VEILED), len(veiled) - 1):
        changed = veiled[:place] + ("A" if veiled[place] != "A" else "B") + veiled[place + 1 :]
        assert veils.unveil(changed) == changed


def test_each_organisation_veils_by_a_key_of_its_own(box: Box, old: OperatorKey, new: OperatorKey) -> None:
    veiled = box(old).veil(ACME)(NAME)
    assert NAME.encode() not in urlsafe_b64decode(veiled.removeprefix(VEILED) + "==")
    assert box(old).veil(ACME)(NAME) == veiled != box(old).veil(RIVAL)(NAME)
    assert box(new, old).unveil(ACME)(veiled) == NAME
    assert box(old).unveil(RIVAL)(veiled) == veiled


def test_secrets_may_be_forgotten_while_names_stay(box: Box, old: OperatorKey) -> None:
    veiled = box(old).veil(ACME)(NAME)
    box(old).seal(ACME, "esm", "canary-secret-5f1d")
    box(old).forget_all(ACME)
    assert box(old).unveil(ACME)(veiled) == NAME
    assert box(old).seal(ACME, "esm", "another") == 2


def test_who_is_erased_gets_no_key_ever_again(box: Box, old: OperatorKey, connection: Connection[Any]) -> None:
    process = box(old)
    process.seal(ACME, "esm", "canary-secret-5f1d")
    veiled, other = process.veil(ACME)(NAME), process.veil(RIVAL)(NAME)
    for _ in range(2):
        process.erase(ACME)
        assert process.unveil(ACME)(veiled) == veiled
        with pytest.raises(KeyError):
            process.open(ACME, "esm", 1)
        with pytest.raises(OrgMembershipRequired):
            process.veil(ACME)
        with pytest.raises(OrgMembershipRequired):
            process.seal(ACME, "esm", "new")
    assert process.unveil(RIVAL)(other) == NAME
    owners = connection.execute("SELECT count(DISTINCT organization_id) FROM organisation_keys").fetchone()
    assert owners == (1,)
    assert connection.execute("SELECT DISTINCT length(sealed) FROM secrets").fetchall() == [(0,)]


def test_whoever_veils_meanwhile_gets_no_new_key(box: Box, old: OperatorKey, connection: Connection[Any]) -> None:
    process, veiled = box(old), []

    def veil() -> None:
        with suppress(OrgMembershipRequired):
            while True:
                veiled.append(process.veil(ACME)(NAME))

    threads = [Thread(target=veil) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(veiled) > 20, "veils")
    process.erase(ACME)
    for thread in threads:
        thread.join()
    assert {process.unveil(ACME)(each) for each in veiled} == set(veiled)
    assert connection.execute("SELECT FROM organisation_keys").fetchall() == []
