"""Hands deliveries from one thread to another: one of each queue in turn, so that the many of one delay no other."""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

# Of what a source brings it bounds the number; of large ones few are enough to fill a worker's memory.
MOST_WAITING = 64 << 20
# Each time; then it goes on regardless: it must show the broker that it lives.
HELD_S = 0.5


class HandOver(Generic[T]):
    """What one source delivers from several queues; it is held up while more than MOST_WAITING waits, by `weigh`."""

    def __init__(self, weigh: Callable[[T], int]) -> None:
        self._weigh = weigh
        self._count = 0
        self._weight = 0
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
            self._count = self._weight = 0
            self._waiting.clear()
            self._turns.clear()
            self._changed.notify_all()

    def put(self, source: object, queue: Hashable, delivered: Sequence[T]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._weight < MOST_WAITING or self._closed, HELD_S)
            if source is self._source:
                waiting = self._waiting.get(queue)
                if waiting is None:
                    self._waiting[queue] = deque(delivered)
                    self._turns.append(queue)
                else:
                    waiting.extend(delivered)
                before, self._count = self._count, self._count + len(delivered)
                self._weight += sum(map(self._weigh, delivered))
                if before < self._enough <= self._count:
                    self._changed.notify_all()

    def take(self, size: int, linger: float) -> list[T]:
        """Waits for the first, then up to `linger` seconds for `size` of them; empty only when closed."""
        with self._changed:
            while not self._closed:
                self._await(1, None)
                self._await(size, linger)
                if self._count and not self._closed:
                    taken = self._take(min(size, self._count))
                    self._weight -= sum(map(self._weigh, taken))
                    self._changed.notify_all()
                    return taken
            return []

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

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
