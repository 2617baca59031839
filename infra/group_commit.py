"""Group commit: what comes while one append is on its way goes with the next one, all in one round trip."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from domain.errors import Unavailable

T = TypeVar("T")

MOST = 64


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(eq=False)
class _Request(Generic[T]):
    """`turn` is let go when the request is done, or when it is its turn to lead."""

    item: T
    turn: threading.Lock = field(default_factory=_locked)
    done: bool = False
    result: Any = None
    error: Exception | None = None


class GroupCommit(Generic[T]):
    """`commit` gets what has gathered until it asks for it, and returns a result each. What it raises, each raises."""

    def __init__(self, commit: Callable[[Callable[[], Sequence[T]]], Sequence[Any]]):
        self._commit = commit
        self._lock = threading.Lock()
        self._waiting: deque[_Request[T]] = deque()
        self._led = False

    def submit(self, item: T) -> Any:
        request = _Request(item)
        with self._lock:
            self._waiting.append(request)
            leads, self._led = not self._led, True
        if not leads:
            request.turn.acquire()
        if not request.done:
            self._lead()
        if request.error is not None:
            raise request.error
        return request.result

    def _lead(self) -> None:
        """Its own request is the first of those that wait."""
        taken: list[_Request[T]] = []

        def take() -> list[T]:
            with self._lock:
                while self._waiting and len(taken) < MOST:
                    taken.append(self._waiting.popleft())
            return [request.item for request in taken]

        try:
            for request, result in zip(taken, self._commit(take), strict=True):
                request.result = result
        except BaseException as error:
            take()
            for request in taken:
                # Ctrl-C is the leader's alone; whether the others' items were committed is not known.
                request.error = error if isinstance(error, Exception) else Unavailable()
            if not isinstance(error, Exception):
                raise
        finally:
            self._hand_on(taken)

    def _hand_on(self, taken: Sequence[_Request[T]]) -> None:
        with self._lock:
            following = self._waiting[0] if self._waiting else None
            self._led = following is not None
        for request in taken:
            request.done = True
        for request in [*taken[1:], *([following] if following else [])]:
            request.turn.release()
