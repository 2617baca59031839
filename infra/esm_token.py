"""The access tokens of the ESM partners: one per organisation and its credentials, fetched by one caller for all."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from uuid import UUID

from application.ports import Partner

USED_LIFE = 0.8


@dataclass(frozen=True)
class Token:
    """A token and its life in seconds."""

    value: str = field(repr=False)
    expires_in: float


@dataclass(frozen=True)
class _Flight:
    """One fetch, under way or done, and for whom; `started` counts, because the token was made no earlier."""

    partner: Partner
    started: float
    token: Future[Token] = field(default_factory=Future)

    def serves(self, partner: Partner, rejected: str | None, now: float) -> bool:
        """Whether its token, once there, is good for a caller whose last one was `rejected`."""
        if self.partner != partner:
            return False
        if not self.token.done():
            return True
        if self.token.exception() is not None:
            return False
        token = self.token.result()
        return token.value != rejected and now < self.started + USED_LIFE * token.expires_in


class Tokens:
    """Hands out tokens that `fetch` gets; a failed fetch fails for all who wait, and the next caller tries anew."""

    def __init__(self, fetch: Callable[[Partner], Token], clock: Callable[[], float] = time.monotonic):
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._flights: dict[UUID, _Flight] = {}

    def get(self, partner: Partner, wait: float, rejected: str | None = None) -> str:
        """A token younger than 80 % of its life and other than `rejected`. Waits up to `wait` seconds for another
        caller's fetch, then raises TimeoutError; what `fetch` raises comes through."""
        flight, mine = self._join(partner, rejected)
        if mine:
            try:
                flight.token.set_result(self._fetch(partner))
            except BaseException as failed:  # whatever it is, those who wait must hear of it
                flight.token.set_exception(failed)
                raise
        return flight.token.result(wait).value

    def _join(self, partner: Partner, rejected: str | None) -> tuple[_Flight, bool]:
        with self._lock:
            now = self._clock()
            flight = self._flights.get(partner.organization_id)
            if flight and flight.serves(partner, rejected, now):
                return flight, False
            flight = self._flights[partner.organization_id] = _Flight(partner, now)
            return flight, True
