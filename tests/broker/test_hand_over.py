"""What waits between two threads is bounded by its size, whatever the number, and nothing waits for ever."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra import hand_over
from infra.hand_over import HandOver

SOURCE, LATER = object(), object()


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> HandOver[bytes]:
    """Two of ten bytes, where twenty are enough."""
    monkeypatch.setattr(hand_over, "MOST_WAITING", 20)
    monkeypatch.setattr(hand_over, "HELD_S", 60)
    between: HandOver[bytes] = HandOver(len)
    between.accept(SOURCE)
    for n in range(2):
        between.put(SOURCE, "large" if n else "other", [b"%d" % n * 10])
    return between


def test_taking_lets_the_source_go_on(full: HandOver[bytes]) -> None:
    with ThreadPoolExecutor(1) as thread:
        put = thread.submit(full.put, SOURCE, "large", [b"4"])
        assert not put.done()
        assert full.take(1, 0) == [b"0" * 10]
        put.result(10)
    assert full.take(9, 0) == [b"1" * 10, b"4"]


@pytest.mark.parametrize(
    ("end", "left"),
    [(lambda each: each.accept(LATER), [b"new"]), (lambda each: each.close(), [])],
    ids=["another source", "the end"],
)
def test_who_is_held_up_hears_of_the_end(
    full: HandOver[bytes], end: Callable[[HandOver[bytes]], None], left: list[bytes]
) -> None:
    with ThreadPoolExecutor(1) as thread:
        put = thread.submit(full.put, SOURCE, "large", [b"4"])
        end(full)
        put.result(10)
    full.put(LATER, "large", [b"new"])
    assert full.take(9, 0) == left


def test_a_source_is_not_held_up_beyond_its_heartbeat(full: HandOver[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_over, "HELD_S", 0.01)
    full.put(SOURCE, "large", [b"4"])
    assert len(full.take(9, 0)) == 3


def test_nothing_is_lost_between_a_fast_source_and_a_slow_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_over, "MOST_WAITING", 50)
    monkeypatch.setattr(hand_over, "HELD_S", 60)
    between: HandOver[bytes] = HandOver(len)
    between.accept(SOURCE)
    sent = [b"%04d" % n for n in range(2000)]

    def bring() -> None:
        for at in range(0, len(sent), 7):
            between.put(SOURCE, "queue", sent[at : at + 7])

    source = threading.Thread(target=bring, daemon=True)
    source.start()
    taken: list[bytes] = []
    while len(taken) < len(sent):
        batch = between.take(100, 0.001)
        assert sum(map(len, batch)) < 50 + 7 * 4
        taken += batch
    source.join()
    assert taken == sent
