"""Rate limits by the minute, of each caller and of each organisation, counted in this process."""

import math
import time
from dataclasses import dataclass, field
from typing import Literal

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from domain.errors import TooManyRequests
from interfaces.http.credentials import Caller
from interfaces.http.services import RateLimits

Kind = Literal["reads", "writes", "syncs"]


@dataclass(frozen=True)
class Limiter:
    """`spend` counts one call; with N processes each gives the full budget, so a balancer should hash by caller."""

    limits: RateLimits
    _limiter: FixedWindowRateLimiter = field(default_factory=lambda: FixedWindowRateLimiter(MemoryStorage()))

    def spend(self, kind: Kind, caller: Caller) -> dict[str, str]:
        """The RateLimit headers of the scarcer budget; raises TooManyRequests, which carries them."""
        item = RateLimitItemPerMinute(getattr(self.limits, kind))
        whose = ((kind, caller.actor), (kind, str(caller.organization_id)))
        allowed = all(self._limiter.hit(item, *identity) for identity in whose)
        stats = [self._limiter.get_window_stats(item, *identity) for identity in whose]
        scarcest = min(stats, key=lambda each: (each.remaining, -each.reset_time))
        reset = max(1, math.ceil(scarcest.reset_time - time.time()))
        headers = {
            "RateLimit-Limit": str(item.amount),
            "RateLimit-Remaining": str(max(0, scarcest.remaining)),
            "RateLimit-Reset": str(reset),
        }
        if not allowed:
            raise LimitExceeded(headers, reset)
        return headers


class LimitExceeded(TooManyRequests):
    """Too many requests"""

    def __init__(self, headers: dict[str, str], reset: int):
        super().__init__(retry_after=reset)
        self.headers = headers
