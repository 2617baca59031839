"""Rate limits by the minute, of each caller and of each organisation, over all processes on one database."""

import asyncio
import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from domain.errors import TooManyRequests
from interfaces.http.credentials import Caller
from interfaces.http.services import RateLimits
from projections.rate_budgets import Spent, forget_ended, settle

log = logging.getLogger(__name__)

Kind = Literal["reads", "writes", "syncs"]

WINDOW_S = 60
REMEMBERED = 100_000
SLICE = 20
"""A process tells the database of each 1/20 of a budget that it has let through: so much may be too much, for each."""
PATIENCE_S = 0.1
"""A call waits no longer for the database, and none does for a while after one did."""
RETRY_S = 1.0
FORGET_S = 600


@dataclass(slots=True)
class _Budget:
    """One window of a budget, as this process knows it: its own calls, those of them that the database has been told
    of, and the others'."""

    key: str
    ends: float
    mine: int = 0
    told: int = 0
    others: int = 0


@dataclass
class Limiter:
    """`spend` counts one call. While the database does not answer, each process counts by itself. Without `queries`
    there is no other process. Called from the event loop alone."""

    limits: RateLimits
    queries: "AsyncConnectionPool[AsyncConnection[Any]] | None" = None
    _budgets: dict[str, _Budget] = field(default_factory=dict)
    _due: dict[str, _Budget] = field(default_factory=dict)
    _settling: "asyncio.Task[None] | None" = None
    _silent_until: float = 0.0
    _forgotten: float = field(default_factory=time.monotonic)

    async def spend(self, kind: Kind, caller: Caller) -> dict[str, str]:
        """The RateLimit headers of the scarcer budget; raises LimitExceeded, which carries them."""
        limit: int = getattr(self.limits, kind)
        now = time.monotonic()
        budgets = [self._budget(f"{kind}/{name}", now) for name in (caller.actor, caller.organization)]
        for budget in budgets:
            if budget.others + budget.mine >= limit:
                # Known to be used up: costs neither the other budget nor the database anything.
                raise LimitExceeded(_headers(limit, limit, budget.ends, now))
        for budget in budgets:
            budget.mine += 1
        calls = [(budget, budget.mine) for budget in budgets]
        due = [budget for budget in budgets if budget.mine - budget.told >= max(1, limit // SLICE)]
        if due and self.queries is not None and now >= self._silent_until:
            await self._settle(due)
        spent, ends = max([(budget.others + number, budget.ends) for budget, number in calls])
        headers = _headers(limit, spent, ends, now)
        if spent > limit:
            raise LimitExceeded(headers)
        return headers

    def _budget(self, key: str, now: float) -> _Budget:
        budget = self._budgets.get(key)
        if budget is None or budget.ends <= now:
            if len(self._budgets) >= REMEMBERED:
                self._budgets = {name: each for name, each in self._budgets.items() if each.ends > now}
            budget = self._budgets[key] = _Budget(key, now + WINDOW_S)
        return budget

    async def _settle(self, due: list[_Budget]) -> None:
        """By one task on one connection, whatever the load: what comes meanwhile is settled together."""
        self._due |= {budget.key: budget for budget in due}
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle_due())
        done, _ = await asyncio.wait([self._settling], timeout=PATIENCE_S)
        if not done:
            self._silent_until = time.monotonic() + RETRY_S

    async def _settle_due(self) -> None:
        assert self.queries is not None
        while self._due:
            batch, self._due = self._due, {}
            try:
                async with self.queries.connection() as connection:
                    await self._tell(connection, batch)
            except psycopg.Error as error:
                log.warning("rate limits are counted in this process alone", extra={"error": type(error).__name__})
                self._silent_until = time.monotonic() + RETRY_S

    async def _tell(self, connection: "AsyncConnection[Any]", batch: dict[str, _Budget]) -> None:
        now = time.monotonic()
        fresh = {key: budget.mine - budget.told for key, budget in batch.items()}
        telling = [Spent(key, fresh[key], max(0.0, budget.ends - now)) for key, budget in batch.items()]
        for key, calls, left_s in await settle(connection, telling):
            budget = batch[key]
            budget.told += fresh[key]
            budget.others = max(0, calls - budget.told)
            budget.ends = time.monotonic() + left_s
        if now - self._forgotten > FORGET_S:
            self._forgotten = now
            await forget_ended(connection)


class LimitExceeded(TooManyRequests):
    """Too many requests"""

    def __init__(self, headers: dict[str, str]):
        super().__init__(retry_after=int(headers["RateLimit-Reset"]))
        self.headers = headers


def _headers(limit: int, spent: int, ends: float, now: float) -> dict[str, str]:
    return {
        "RateLimit-Limit": str(limit),
        "RateLimit-Remaining": str(max(0, limit - spent)),
        "RateLimit-Reset": str(max(1, math.ceil(ends - now))),
    }
