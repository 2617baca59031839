"""A circuit breaker: after some failures in a row nobody asks for a while, then one caller tries again.

Our own, because pybreaker holds its lock while the guarded call runs, so one slow host would serialise all its callers.
"""

import threading
import time
from collections.abc import Callable


class CircuitOpen(Exception):
    """Not asked: it failed repeatedly, and `seconds` are left before the next try."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds


class CircuitBreaker:
    """Opens after `failures` in a row for `pause` seconds; whoever was admitted reports how it went. Thread-safe."""

    def __init__(self, failures: int, pause: float, clock: Callable[[], float] = time.monotonic):
        self._limit = failures
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        self._open_until: float | None = None

    def admit(self) -> None:
        """Raises CircuitOpen while nobody should ask; after the pause one may, and others once that went well."""
        with self._lock:
            if self._open_until is None:
                return
            now = self._clock()
            if now < self._open_until:
                raise CircuitOpen(self._open_until - now)
            self._open_until = now + self._pause

    def report(self, *, well: bool) -> bool:
        """How an admitted call went; True when this report opened the circuit."""
        with self._lock:
            if well:
                self._failed, self._open_until = 0, None
                return False
            self._failed += 1
            if self._failed < self._limit:
                return False
            was_closed = self._open_until is None
            self._open_until = self._clock() + self._pause
            return was_closed
