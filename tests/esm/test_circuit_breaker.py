"""The circuit opens after failures in a row, stays open for its pause, and lets one caller try."""

import pytest

from infra.circuit_breaker import CircuitBreaker, CircuitOpen
from tests.esm.test_tokens import Clock


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(3, 30, clock)
    assert [breaker.report(well=False) for _ in range(3)] == [False, False, True]
    return breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = CircuitBreaker(2, 30, Clock())
    for _ in range(5):
        breaker.admit()
        breaker.report(well=False)
        breaker.admit()
        breaker.report(well=True)
    breaker.admit()


def test_while_open_it_says_how_long() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    with pytest.raises(CircuitOpen) as refused:
        breaker.admit()
    assert refused.value.seconds == 20


def test_after_the_pause_one_may_try_and_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30
    breaker.admit()
    with pytest.raises(CircuitOpen):
        breaker.admit()
    breaker.report(well=True)
    breaker.admit()


def test_a_try_that_fails_opens_it_again_and_is_not_news() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30
    breaker.admit()
    assert not breaker.report(well=False)
    with pytest.raises(CircuitOpen):
        breaker.admit()


def test_a_try_that_never_reports_does_not_shut_it_for_ever() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 30
    breaker.admit()
    clock.now += 30
    breaker.admit()
