"""The ESM partner's HTTP API (esm.md): the one place that knows its routes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ssl import SSLContext
from typing import TypeVar

import stamina

from application.ports import EsmAnswer, EsmPlantConfig, EsmPlantList, Partner
from domain.day_plan import TimeBlock
from domain.errors import EsmUnreachable
from infra.bulkhead import Bulkhead, Overcrowded
from infra.deadline import deadline, remaining
from infra.esm_http import Call, Failed, PartnerHttp
from infra.esm_schema import ChangeAnswer, Malformed, PlantConfigAnswer, PlantListAnswer, TokenAnswer
from infra.esm_token import Token, Tokens
from infra.public_address import PublicAddresses, Resolve, lookup

T = TypeVar("T")


@dataclass(frozen=True)
class Timeouts:
    """Seconds: for a connection, and for a whole call with its token, its retries and their waits."""

    connect: float = 3.0
    total: float = 10.0


@dataclass(frozen=True)
class Retries:
    """How often a GET is tried, and the seconds between: they double, with jitter, up to `wait_max`."""

    attempts: int = 3
    wait_initial: float = 0.1
    wait_max: float = 1.0


@dataclass(frozen=True)
class Breaker:
    """After `failures` in a row a host is left alone for `pause` seconds."""

    failures: int = 5
    pause: float = 30.0


@dataclass(frozen=True)
class Room:
    """An organisation's calls that may run at once, and those of all; while one of them lasts longer than `patience`
    seconds, no other waits for their end."""

    calls: int = 8
    total: int = 24  # fewer than the API has threads for commands
    patience: float = 1.0


class Esm:
    """Calls the partners of all organisations; thread-safe. `allowed` lists CIDRs and hosts that need not be public.

    Every call raises EsmUnreachable with a short text of our own, also for a URL that is no longer allowed."""

    def __init__(
        self,
        allowed: Iterable[str] = (),
        *,
        timeouts: Timeouts = Timeouts(),
        retries: Retries = Retries(),
        breaker: Breaker = Breaker(),
        room: Room = Room(),
        resolve: Resolve = lookup,
        tls: SSLContext | None = None,
    ):
        self._timeouts = timeouts
        self._retries = retries
        self._public = PublicAddresses(allowed, resolve, lookup_seconds=timeouts.connect)
        self._http = PartnerHttp(self._public, timeouts.connect, (breaker.failures, breaker.pause), tls)
        self._tokens = Tokens(self._fetch_token)
        self._bulkhead = Bulkhead(room.calls, room.patience, room.total)

    def check_url(self, url: str) -> None:
        """Raises EsmUrlNotAllowed unless the URL is one that we would connect to now."""
        self._public.check_url(url)

    def plants(self, partner: Partner) -> EsmPlantList:
        call = Call("plant list", "GET", _url(partner, "plant/list"))
        return self._get(partner, call, lambda body: PlantListAnswer.read(body).as_list())

    def plant_config(self, partner: Partner, plant_id: str) -> EsmPlantConfig:
        call = Call("plant config", "GET", _url(partner, "plant/config"), params={"plantId": plant_id})

        def read(body: bytes) -> EsmPlantConfig:
            config = PlantConfigAnswer.read(body).as_config()
            if config.plant_id != plant_id:
                raise Malformed
            return config

        return self._get(partner, call, read)

    def update_config(
        self, partner: Partner, plant_id: str, version: int, blocks: Sequence[TimeBlock], *, validate_only: bool
    ) -> EsmAnswer:
        """Sent once, and once more only after a 401, which says that it was not looked at."""
        change = {
            "plantId": plant_id,
            "version": version,
            "validateOnly": validate_only,
            "timeConfigs": [block.as_json() for block in blocks],
        }
        call = Call("config update", "POST", _url(partner, "plant/config/update"), json=change)
        return self._in_time(partner, lambda: self._authorized(partner, call, _read_change))

    def request_status(self, partner: Partner, request_code: str) -> EsmAnswer:
        url = _url(partner, "plant/config/request")
        return self._get(
            partner, Call("request status", "GET", url, params={"requestCode": request_code}), _read_change
        )

    def close(self) -> None:
        self._http.close()

    def _get(self, partner: Partner, call: Call, read: Callable[[bytes], T]) -> T:
        return self._in_time(partner, lambda: self._retried(lambda: self._authorized(partner, call, read)))

    def _in_time(self, partner: Partner, work: Callable[[], T]) -> T:
        try:
            with self._bulkhead.room(partner.organization_id), deadline(self._timeouts.total):
                return work()
        except Failed as failed:
            raise EsmUnreachable(str(failed), retry_after=failed.retry_after) from None
        except Overcrowded:
            raise EsmUnreachable("ESM is not asked: too many calls wait for slow ones already", retry_after=1) from None

    def _retried(self, work: Callable[[], T]) -> T:
        attempts = stamina.retry_context(
            on=self._is_worth_a_retry,
            attempts=self._retries.attempts,
            timeout=None,  # the deadline is ours, and also stops the attempt itself
            wait_initial=self._retries.wait_initial,
            wait_max=self._retries.wait_max,
            wait_jitter=self._retries.wait_initial,
        )
        for attempt in attempts:
            with attempt:
                return work()
        raise AssertionError("stamina raises when it gives up")

    def _is_worth_a_retry(self, failed: Exception) -> bool:
        return isinstance(failed, Failed) and failed.transient and remaining() > self._retries.wait_max

    def _authorized(self, partner: Partner, call: Call, read: Callable[[bytes], T]) -> T:
        token = self._token(partner)
        try:
            body = self._http.send(_bearing(call, token))
        except Failed as failed:
            if failed.status != 401:
                raise
            body = self._http.send(_bearing(call, self._token(partner, rejected=token)))
        return _read(call, body, read)

    def _token(self, partner: Partner, rejected: str | None = None) -> str:
        try:
            return self._tokens.get(partner, remaining(), rejected)
        except TimeoutError:
            raise Failed("ESM did not answer the token request in time", transient=True) from None

    def _fetch_token(self, partner: Partner) -> Token:
        credentials = {
            "grant_type": "client_credentials",
            "client_id": partner.client_id,
            "client_secret": partner.client_secret,
        }
        call = Call("token request", "POST", _url(partner, "token"), form=credentials)
        try:
            body = self._http.send(call)
        except Failed as failed:
            if failed.status in (400, 401, 403):
                # Without its status, so that it can't be taken for a token that was refused.
                raise Failed("ESM refused the client id and secret") from None
            raise
        answer = _read(call, body, TokenAnswer.read)
        return Token(answer.access_token, answer.expires_in)


def _url(partner: Partner, route: str) -> str:
    return f"{partner.api_url.rstrip('/')}/trading/{route}"


def _bearing(call: Call, token: str) -> Call:
    return replace(call, headers={"Authorization": f"Bearer {token}"})


def _read(call: Call, body: bytes, read: Callable[[bytes], T]) -> T:
    try:
        return read(body)
    except Malformed:
        raise Failed(f"ESM's answer to the {call.what} is not what its API promises") from None


def _read_change(body: bytes) -> EsmAnswer:
    return ChangeAnswer.read(body).as_answer()
