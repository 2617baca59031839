"""How long the work at hand may still take in all: one clock over every step of a call, however slow."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ends_at: ContextVar[float] = ContextVar("ends_at", default=math.inf)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bounds the block to `seconds` in all; a tighter deadline around it stays in force."""
    token = _ends_at.set(min(_ends_at.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _ends_at.reset(token)


def remaining() -> float:
    """Seconds that are left, never below 0; infinite without a deadline."""
    return max(0.0, _ends_at.get() - time.monotonic())
