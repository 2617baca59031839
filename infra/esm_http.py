"""How we speak HTTP to a partner whom we don't trust: bounded in time and size, its failures told in our words."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from ssl import SSLContext

import httpcore
import httpx

from domain.errors import EsmUrlNotAllowed
from infra.circuit_breaker import CircuitBreaker, CircuitOpen
from infra.deadline import remaining
from infra.metrics import ESM_CALLS
from infra.public_address import PublicAddresses, PublicNetwork

MAX_ANSWER = 1_000_000
MAX_RETRY_AFTER = 3600
_TRANSIENT = frozenset({429, 500, 502, 503, 504})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One HTTP request; `what` names it in every failure, e.g. "plant list"."""

    what: str
    method: str
    url: str
    headers: Mapping[str, str] | None = None
    params: Mapping[str, str] | None = None
    form: Mapping[str, str] | None = None
    json: object = None


class Failed(Exception):
    """A call that came to nothing. `transient`: worth another try; `ill`: speaks against the host's health."""

    def __init__(
        self,
        text: str,
        *,
        transient: bool = False,
        ill: bool = False,
        status: int | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(text)
        self.transient = transient
        self.ill = ill
        self.status = status
        self.retry_after = retry_after


class PartnerHttp:
    """Sends one call at a time within the deadline of the work at hand; a circuit breaker for each host and port."""

    def __init__(
        self, public: PublicAddresses, connect: float, breaker: tuple[int, float], tls: SSLContext | None = None
    ):
        self._public = public
        self._connect = connect
        self._breaker = breaker
        self._breakers: dict[tuple[str, int | None], CircuitBreaker] = {}
        self._last_ill: dict[tuple[str, int | None], str] = {}
        self._lock = threading.Lock()
        self._client = httpx.Client(
            transport=_GuardedTransport(public, tls or httpx.create_ssl_context()),
            trust_env=False,  # a proxy would connect for us, past the guard
            follow_redirects=False,
            # Compression would let a small answer grow past any bound before we can count it.
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "wattledger"},
        )
        # Their debug lines quote the partner's headers, and those are nobody's business but its own.
        for chatty in ("httpx", "httpcore"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        # The client serves all organisations: what one partner sets must not come back with another's requests.
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def send(self, call: Call) -> bytes:
        """The JSON body of a 2xx answer, of at most 1 MB; raises Failed for everything else."""
        try:
            url = self._public.check_form(call.url)
        except EsmUrlNotAllowed as refused:
            raise Failed(str(refused)) from None
        breaker = self._breaker_of(url)
        try:
            breaker.admit()
        except CircuitOpen as circuit:
            seconds = max(1, round(circuit.seconds))
            why = f"{self._last_ill[url.host, url.port]}, repeatedly, and is left alone for a while"
            raise Failed(why, retry_after=seconds) from None
        well, outcome = True, "ok"
        try:
            return self._exchange(call, url)
        except Failed as failed:
            well, outcome = not failed.ill, str(failed.status or "no answer")
            if failed.ill:
                self._last_ill[url.host, url.port] = str(failed)
            raise
        finally:
            ESM_CALLS.labels(url.host, outcome).inc()
            if breaker.report(well=well):
                log.warning("The ESM's circuit opened", extra={"action": "esm.circuit-open", "host": url.host})

    def close(self) -> None:
        self._client.close()

    def _breaker_of(self, url: httpx.URL) -> CircuitBreaker:
        with self._lock:
            return self._breakers.setdefault((url.host, url.port), CircuitBreaker(*self._breaker))

    def _exchange(self, call: Call, url: httpx.URL) -> bytes:
        try:
            return self._converse(call, url)
        except EsmUrlNotAllowed as refused:
            raise Failed(str(refused)) from None
        except httpx.TimeoutException:
            raise Failed(f"ESM did not answer the {call.what} in time", transient=True, ill=True) from None
        except httpx.ConnectError:
            raise Failed(f"ESM can't be reached for the {call.what}", transient=True, ill=True) from None
        except (httpx.HTTPError, httpx.StreamError):
            raise Failed(f"ESM broke off its answer to the {call.what}", transient=True, ill=True) from None

    def _converse(self, call: Call, url: httpx.URL) -> bytes:
        left = remaining()
        if left <= 0:
            raise httpx.ReadTimeout("out of time")
        # The deadline bounds every read and write below; httpx itself only needs to know of connect and its pool.
        with self._client.stream(
            call.method,
            url,
            headers=dict(call.headers or {}),
            params=call.params,
            data=call.form,
            json=call.json,
            timeout=httpx.Timeout(None, connect=min(self._connect, left), pool=min(left, 60)),
        ) as response:
            _check_head(call.what, response)
            return _bounded_body(call.what, response)


class _GuardedTransport(httpx.BaseTransport):
    """httpx's transport over our guarded network; httpx.HTTPTransport has no public way to set one."""

    def __init__(self, public: PublicAddresses, tls: SSLContext):
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=PublicNetwork(public),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        with _in_httpx_words():
            answer = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions)

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """The body of an httpcore answer."""

    def __init__(self, answer: httpcore.Response):
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _in_httpx_words():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


@contextmanager
def _in_httpx_words() -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as expired:
        raise httpx.TimeoutException(str(expired)) from expired
    except httpcore.ConnectError as failed:
        raise httpx.ConnectError(str(failed)) from failed
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as failed:
        raise httpx.TransportError(str(failed)) from failed


def _check_head(what: str, response: httpx.Response) -> None:
    status = response.status_code
    if not response.is_success:
        wait = _retry_after(response) if status in (429, 503) else None
        # Who says when to come back means it: only without such a time it is ours to choose.
        transient = status in _TRANSIENT and wait is None
        text = f"ESM answered {status} to the {what}"
        raise Failed(text, transient=transient, ill=status >= 500, status=status, retry_after=wait)
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise Failed(f"ESM's answer to the {what} is not JSON")
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Failed(f"ESM's answer to the {what} is compressed, which was not asked for")


def _bounded_body(what: str, response: httpx.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise Failed(f"ESM's answer to the {what} is larger than 1 MB")
    return bytes(body)


def _retry_after(response: httpx.Response) -> int | None:
    """Seconds; the form with a date is as good as none."""
    value = response.headers.get("retry-after", "")
    return min(int(value), MAX_RETRY_AFTER) if value.isascii() and value.isdigit() and len(value) < 10 else None
