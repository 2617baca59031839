"""Operator keys come and go while processes that know only one of them go on."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from threading import Barrier
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection
from psycopg_pool import ConnectionPool

from infra.data_keys import DataKeys
from infra.operator_keys import OperatorKey, WeakKey
from infra.secret_box import HmacKeyHasher, PostgresSecretBox
from tests.examples import ACME, RIVAL
from tests.secrets.conftest import Box

ORGANISATIONS = [UUID(int=number) for number in range(1, 31)]
SECRET = "canary-secret-5f1d"


def uses(connection: Connection[Any], *keys: OperatorKey) -> dict[str, tuple[int, int]]:
    """By key id: how many data keys it wraps, and how many of them need it."""
    return {use.key_id: (use.data_keys, use.needed_by) for use in DataKeys(keys).uses(connection)}


def test_a_key_is_replaced_while_old_processes_go_on(
    box: Box, old: OperatorKey, new: OperatorKey, connection: Connection[Any]
) -> None:
    running = box(old)
    running.seal(ACME, "esm", SECRET)
    hashed = HmacKeyHasher(running).hash("key")
    keys = DataKeys([new, old])
    assert uses(connection, new, old) == {new.id: (0, 0), old.id: (2, 2)}
    assert keys.rotate(connection) == 2
    assert uses(connection, new, old) == {new.id: (2, 0), old.id: (2, 0)}
    assert keys.rotate(connection) == 0
    # An old process reads and writes, also for organisations that a new one made, and the other way round.
    box(new, old).seal(RIVAL, "esm", SECRET)
    assert running.open(RIVAL, "esm", 1) == running.open(ACME, "esm", 1) == SECRET
    late = UUID(int=99)
    running.seal(late, "esm", SECRET)
    assert box(new, old).open(late, "esm", 1) == SECRET
    # That one knows only the old key, which says so.
    with pytest.raises(WeakKey, match="still needed by 1 data keys: rotate once more"):
        keys.retire(connection, old.id)
    assert uses(connection, new, old)[old.id] == (4, 1)
    assert keys.rotate(connection) == 1
    assert keys.retire(connection, old.id) == 4
    assert keys.retire(connection, old.id) == 0
    assert uses(connection, new) == {new.id: (4, 4)}
    fresh = box(new)
    assert {fresh.open(each, "esm", 1) for each in (ACME, RIVAL, late)} == {SECRET}
    assert HmacKeyHasher(fresh).matches("key", hashed)


def test_the_first_key_is_never_retired(box: Box, old: OperatorKey, connection: Connection[Any]) -> None:
    box(old).seal(ACME, "esm", SECRET)
    with pytest.raises(WeakKey, match="can't be retired"):
        DataKeys([old]).retire(connection, old.id)


def test_a_key_that_is_gone_too_soon_is_told(
    box: Box, old: OperatorKey, new: OperatorKey, connection: Connection[Any]
) -> None:
    box(old).seal(ACME, "esm", SECRET)
    keys = DataKeys([new])
    for refuses in (keys.check, keys.rotate):
        with pytest.raises(WeakKey, match=f"The key {old.id}, which 1 data keys need, is not among"):
            refuses(connection)
    with pytest.raises(WeakKey, match=old.id):
        box(new).open(ACME, "esm", 1)
    told = {use.key_id: use for use in keys.uses(connection)}
    assert (told[old.id].known, told[old.id].needed_by, told[new.id].seals) == (False, 1, True)


def test_another_key_under_the_same_id_is_told(box: Box, old: OperatorKey, connection: Connection[Any]) -> None:
    box(old).seal(ACME, "esm", SECRET)
    with pytest.raises(WeakKey, match="not the one"):
        DataKeys([OperatorKey(old.id, OperatorKey.random().key)]).check(connection)


@pytest.mark.parametrize("done_when_killed", [0, 17])
def test_a_rotation_that_is_killed_is_finished_by_the_next(
    box: Box, old: OperatorKey, new: OperatorKey, connection: Connection[Any], database_url: str, done_when_killed: int
) -> None:
    for organization_id in ORGANISATIONS:
        box(old).seal(organization_id, "esm", SECRET)
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_rotate_until, args=(database_url, [new, old], done_when_killed), daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert uses(connection, new, old)[new.id] == (done_when_killed, 0)
    for known in ((old,), (new, old)):
        assert {box(*known).open(each, "esm", 1) for each in ORGANISATIONS} == {SECRET}
    progress: list[tuple[int, int]] = []
    assert DataKeys([new, old]).rotate(connection, lambda *told: progress.append(told)) == 30 - done_when_killed
    assert progress[-1] == (30 - done_when_killed, 30 - done_when_killed)
    DataKeys([new, old]).retire(connection, old.id)
    assert {box(new).open(each, "esm", 1) for each in ORGANISATIONS} == {SECRET}


def _rotate_until(url: str, keys: list[OperatorKey], done: int) -> None:
    wrapped = 0

    class Mortal(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal wrapped
            result = super().execute(query, *arguments, **options)
            if "INSERT INTO organisation_keys" in str(query):
                wrapped += 1
                if wrapped > done:  # not committed yet
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

    with psycopg.connect(url, autocommit=True, cursor_factory=Mortal) as connection:
        DataKeys(keys).rotate(connection)


def test_two_who_seal_first_share_one_data_key(
    pool: "ConnectionPool[Connection[Any]]", box: Box, old: OperatorKey, new: OperatorKey
) -> None:
    """One of them knows more keys than the other: whoever comes second takes the first one's."""
    together = Barrier(2)

    def seal(organization_id: UUID, *known: OperatorKey) -> None:
        together.wait(10)
        PostgresSecretBox(pool, known).seal(organization_id, "esm", SECRET)

    with ThreadPoolExecutor(2) as threads:
        for each in ORGANISATIONS:
            sealing = [threads.submit(seal, each, old), threads.submit(seal, each, new, old)]
            assert [future.result(10) for future in sealing] == [None, None]
    assert {box(old).open(each, "esm", version) for each in ORGANISATIONS for version in (1, 2)} == {SECRET}
