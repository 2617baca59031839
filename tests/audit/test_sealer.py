"""The sealer: what it seals under load, who takes over, what a crash leaves, and what it refuses to vouch for."""

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest

from infra.audit.sealer import NAME, Refused, Sealer
from infra.audit.sealing_keys import SealingKeys, sealing_keys
from infra.audit.seals import Seal, seals_after
from infra.data_keys import DataKeys
from infra.operator_keys import OperatorKey, WeakKey
from infra.postgres import connect
from tests.audit.conftest import Sealed, fill
from tests.event_log.conftest import dying
from tests.worker.site import until


def seals(fresh: Sealed) -> list[Seal]:
    with fresh.log.connect() as connection:
        return seals_after(connection, 0, 100_000)


def proven(fresh: Sealed) -> None:
    """Every event is under exactly one seal, and the chain holds."""
    fresh.sealer(1000).catch_up()
    found = fresh.verify()
    assert (found.intact, found.events, found.unsealed, found.what) == (True, fresh.log.end(), 0, None)
    made = seals(fresh)
    assert [seal.number for seal in made] == list(range(1, len(made) + 1))
    covered = [p for seal in made for p in range(seal.first_position, seal.last_position + 1)]
    assert covered == list(range(1, fresh.log.end() + 1))


@contextmanager
def running(*sealers: Sealer) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=sealer.run, args=(stop,)) for sealer in sealers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def writing(fresh: Sealed, writers: int = 2) -> Iterator[None]:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            fresh.log.plant(renamed=2)

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("rounds", [8, pytest.param(300, marks=pytest.mark.bench)])
def test_no_false_alarm_under_load_with_two_sealers(fresh: Sealed, rounds: int) -> None:
    with running(fresh.sealer(50), fresh.sealer(50)), writing(fresh):
        until(lambda: len(seals(fresh)) > 3, "sealing")
        for _ in range(rounds):
            found = fresh.verify()
            assert (found.intact, found.what) == (True, None)
    proven(fresh)


def test_a_crash_between_any_two_steps_leaves_no_gap_and_no_second_seal(fresh: Sealed) -> None:
    crashes = 0
    for statements in range(1, 40):
        fresh.log.plant()
        connection = dying(fresh.log, statements)
        try:
            fresh.sealer().step(connection)
        except psycopg.OperationalError:
            crashes += 1
            continue
        finally:
            connection.close()
        break
    assert crashes > 5
    proven(fresh)


def test_killed_under_load_another_takes_over(fresh: Sealed) -> None:
    context = multiprocessing.get_context("spawn")
    with writing(fresh, 1):
        process = context.Process(target=_seal, args=(fresh.log.url, str(fresh.operator_key)), daemon=True)
        process.start()
        until(lambda: len(seals(fresh)) > 1, "sealing")
        process.kill()
        process.join()
    proven(fresh)


def _seal(url: str, key: str) -> None:
    keys = SealingKeys(DataKeys([OperatorKey.parse(key)]))
    Sealer(partial(connect, url, "mortal"), keys, events=20).run(threading.Event())


def test_a_log_of_two_keys_is_proven_and_the_first_key_can_sign_no_more(fresh: Sealed) -> None:
    fill(fresh)
    proven(fresh)
    with fresh.log.connect() as connection:
        first, second = sealing_keys(connection)
    assert first.sealed_private is None
    assert second.sealed_private is not None
    assert {seal.key for seal in seals(fresh)} == {first.fingerprint, second.fingerprint}
    assert fresh.verify(pinned=first.fingerprint).trust == "pinned"
    assert fresh.verify(pinned=second.fingerprint).intact


def test_two_who_rotate_at_once_make_a_chain(fresh: Sealed) -> None:
    fill(fresh)

    def rotate() -> None:
        with fresh.log.connect() as connection:
            fresh.keys().rotate(connection)

    threads = [threading.Thread(target=rotate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fresh.log.plant()
    proven(fresh)


def test_another_operator_key_opens_nothing_and_makes_nothing(fresh: Sealed) -> None:
    fill(fresh)
    stranger = Sealed(fresh.log, OperatorKey.random())
    with pytest.raises(WeakKey):
        stranger.sealer().catch_up()
    assert not stranger.verify().intact
    proven(fresh)


@pytest.mark.parametrize(
    ("tampering", "position", "what"),
    [
        ("DELETE FROM events WHERE position = 13", 13, "position 13 is missing"),
        ("UPDATE events SET position = 99 WHERE position = 14", 14, "position 14 is missing"),
        ("DELETE FROM events WHERE position > 9", 10, "ends at 9, though it was sealed to position 12"),
        ("DELETE FROM seals WHERE number = 3", 9, "sealed to position 12, but the seals end at 8"),
        ("UPDATE seals SET digest = sha256(digest) WHERE number = 3", 9, "Seal 3 is not as it was signed"),
        ("UPDATE seals SET key = sha256(key) WHERE number = 3", 9, "Seal 3 is not as it was signed"),
    ],
)
def test_it_does_not_vouch_for_what_it_finds_changed(fresh: Sealed, tampering: str, position: int, what: str) -> None:
    fill(fresh)
    with fresh.log.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(tampering.encode())
    with pytest.raises(Refused, match=what) as refused:
        fresh.sealer().catch_up()
    assert refused.value.position == position


def test_what_it_has_sealed_itself_may_not_be_replaced_behind_its_back(fresh: Sealed) -> None:
    """Not even by what is signed rightly, such as an older state of the database."""
    sealer = fresh.sealer()
    fresh.log.plant(renamed=2)
    sealer.catch_up()
    with fresh.log.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM seals WHERE number = (SELECT max(number) FROM seals)")
        connection.execute("DELETE FROM slots WHERE name = 'sealer'")
    fresh.sealer().catch_up()
    with pytest.raises(Refused, match="not there any more"):
        sealer.catch_up()


def test_a_parked_sealer_says_so_and_goes_on_when_it_is_mended(fresh: Sealed) -> None:
    fresh.log.plant(renamed=6)
    with running(fresh.sealer()):
        until(lambda: len(seals(fresh)) == 2, "sealing")
        fresh.log.execute("UPDATE events SET position = 0 WHERE position = 8")
        until(lambda: parked(fresh), "parking")
        assert "ends at 7" in str(fresh.log.slot(NAME).error)
        fresh.log.execute("UPDATE events SET position = 8 WHERE position = 0")
        until(lambda: not parked(fresh), "going on")
    proven(fresh)


def parked(fresh: Sealed) -> Any:
    return fresh.log.slot(NAME).parked_at
