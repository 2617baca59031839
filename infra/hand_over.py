"""Hands deliveries from one thread to another: one of each queue in turn, so that the many of one delay no other."""

import threading
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class HandOver(Generic[T]):
    """What one source delivers from several queues; how much may wait is the source's to bound."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting: dict[Hashable, deque[T]] = {}
        self._turns: deque[Hashable] = deque()  # of those that have some
        self._changed = threading.Condition(threading.Lock())
        self._source: object | None = None
        self._enough = 1  # how many the worker waits for
        self._closed = False

    def accept(self, source: object | None) -> None:
        """From now on only this source's; what waits of another will come again, so it is forgotten."""
        with self._changed:
            self._source = source
            self._count = 0
            self._waiting.clear()
            self._turns.clear()

    def put(self, source: object, queue: Hashable, delivered: Sequence[T]) -> None:
        with self._changed:
            if source is self._source:
                waiting = self._waiting.get(queue)
                if waiting is None:
                    self._waiting[queue] = deque(delivered)
                    self._turns.append(queue)
                else:
                    waiting.extend(delivered)
                before, self._count = self._count, self._count + len(delivered)
                if before < self._enough <= self._count:
                    self._changed.notify()

    def take(self, size: int, linger: float) -> list[T]:
        """Waits for the first, then up to `linger` seconds for `size` of them; empty only when closed."""
        with self._changed:
            while not self._closed:
                self._await(1, None)
                self._await(size, linger)
                if self._count and not self._closed:
                    return self._take(min(size, self._count))
            return []

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _await(self, enough: int, timeout: float | None) -> None:
        self._enough = enough
        self._changed.wait_for(lambda: self._closed or self._count >= enough, timeout)

    def _take(self, count: int) -> list[T]:
        taken: list[T] = []
        while len(taken) < count:
            queue = self._turns.popleft()
            waiting = self._waiting[queue]
            taken.append(waiting.popleft())
            if not self._turns:  # it is alone
                taken += [waiting.popleft() for _ in range(min(count - len(taken), len(waiting)))]
            if waiting:
                self._turns.append(queue)
            else:
                del self._waiting[queue]
        self._count -= count
        return taken
