"""A bulkhead: organisations whose partners have stalled hold few threads each, and not all of them together."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from threading import Condition
from uuid import UUID


class Overcrowded(Exception):
    """No room for another call now."""


class Bulkhead:
    """Lets `calls` of each organisation run at once, and `total` of all. Further ones wait for them, but only while
    none has lasted longer than `patience` seconds: nobody queues behind a partner that has stalled. Thread-safe."""

    def __init__(self, calls: int, patience: float, total: int, clock: Callable[[], float] = time.monotonic):
        self._calls = calls
        self._total = total
        self._patience = patience
        self._clock = clock
        self._changed = Condition()
        self._started: defaultdict[UUID, list[float]] = defaultdict(list)

    @contextmanager
    def room(self, organization_id: UUID) -> Iterator[None]:
        """Raises Overcrowded rather than wait longer."""
        started = self._enter(organization_id)
        try:
            yield
        finally:
            self._leave(organization_id, started)

    def _enter(self, organization_id: UUID) -> float:
        with self._changed:
            while ahead := self._ahead(organization_id):
                left = min(ahead) + self._patience - self._clock()
                if left <= 0:
                    raise Overcrowded
                self._changed.wait(left)
            self._started[organization_id].append(started := self._clock())
            return started

    def _ahead(self, organization_id: UUID) -> list[float]:
        """When those calls began of which one must end first."""
        running = self._started.get(organization_id, [])
        if len(running) >= self._calls:
            return running
        everyone = list(chain.from_iterable(self._started.values()))
        return everyone if len(everyone) >= self._total else []

    def _leave(self, organization_id: UUID, started: float) -> None:
        with self._changed:
            running = self._started[organization_id]
            running.remove(started)
            if not running:
                del self._started[organization_id]
            self._changed.notify_all()
