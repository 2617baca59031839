"""Rate limits by the minute, of each caller and of each organisation, counted in this process."""

import math
import time
from dataclasses import dataclass, field
from typing import Literal

from limits.storage import MemoryStorage

from domain.errors import TooManyRequests
from interfaces.http.credentials import Caller
from interfaces.http.services import RateLimits

Kind = Literal["reads", "writes", "syncs"]

WINDOW_S = 60
REMEMBERED = 100_000


class Counters(MemoryStorage):
    """The library's, without its cleaning thread, which it starts anew for nearly every call."""

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = time.time()
        if len(self.expirations) > REMEMBERED:
            for old in [name for name, ends in self.expirations.items() if ends <= now]:
                self.clear(old)
        if self.expirations.get(key, 0) <= now:
            self.storage[key], self.expirations[key] = 0, now + expiry
        self.storage[key] += amount
        return self.storage[key]


@dataclass(frozen=True)
class Limiter:
    """`spend` counts one call; each process gives the full budget. Called from the event loop alone."""

    limits: RateLimits
    counters: Counters = field(default_factory=Counters)

    def spend(self, kind: Kind, caller: Caller) -> dict[str, str]:
        """The RateLimit headers of the scarcer budget; raises LimitExceeded, which carries them."""
        limit: int = getattr(self.limits, kind)
        keys = (f"{kind}/{caller.actor}", f"{kind}/{caller.organization_id}")
        spent, ends = max((self.counters.incr(key, WINDOW_S), self.counters.expirations[key]) for key in keys)
        reset = max(1, math.ceil(ends - time.time()))
        headers = {
            "RateLimit-Limit": str(limit),
            "RateLimit-Remaining": str(max(0, limit - spent)),
            "RateLimit-Reset": str(reset),
        }
        if spent > limit:
            raise LimitExceeded(headers, reset)
        return headers


class LimitExceeded(TooManyRequests):
    """Too many requests"""

    def __init__(self, headers: dict[str, str], reset: int):
        super().__init__(retry_after=reset)
        self.headers = headers
