"""The guard before an address that a partner chose: only public http/https, and connected to what was checked."""

import math
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from ipaddress import IPv4Address, ip_address, ip_network
from ssl import SSLContext
from threading import Thread
from typing import Any

import httpcore
import httpx

from domain.errors import EsmUrlNotAllowed
from infra.address_ranges import METADATA, PRIVATE, Address, Network, is_in, is_public, unmapped
from infra.deadline import deadline, remaining

Resolve = Callable[[str, int], Sequence[str]]
"""All addresses of a name, in the order to try them; raises OSError when there are none."""

MAX_URL = 2048
MAX_HOST = 253

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER_AT_THE_END = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)")
# Python's int takes +80, 8_0 and full-width digits for a port, and others do not.
_PLAIN_PORT = re.compile(r"(?:\[[^\]]*\]|[^:]*)(?::[0-9]{1,5})?")
_NEVER_IN_A_URL = re.compile(r"[\x00-\x20\x7f-\xa0\u2000-\u200f\u2028-\u202f\u3000\ufeff\\]")


def lookup(host: str, port: int) -> list[str]:
    """The system's resolver as a Resolve."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as broken:
        raise OSError("not a name that DNS knows") from broken
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class PublicAddresses:
    """Judges URLs and names; `allowed` are CIDRs and host names that are let in although they are not public.

    An allowed host may have private addresses, but no cloud's metadata service, and any port.
    Every refusal is an EsmUrlNotAllowed that says what is wrong with the URL and never what a name resolved to.
    """

    def __init__(self, allowed: Iterable[str] = (), resolve: Resolve = lookup, lookup_seconds: float = 3.0):
        self._resolve = resolve
        self._lookup_seconds = lookup_seconds
        self._networks: list[Network] = []
        self._hosts: set[str] = set()
        for entry in allowed:
            self._allow(entry.strip().lower())

    def check_url(self, url: str) -> None:
        """Raises EsmUrlNotAllowed unless the form of the URL and every address of its host are allowed now."""
        parsed = self.check_form(url)
        try:
            with deadline(self._lookup_seconds):
                self.addresses(_ascii_host(parsed), parsed.port or _default_port(parsed))
        except OSError:
            raise _refusal("its host can't be resolved") from None

    def check_form(self, url: str) -> httpx.URL:
        """The URL, parsed by what will also send the request; judged without a lookup."""
        if len(url) > MAX_URL or _NEVER_IN_A_URL.search(url):
            raise _refusal("it is too long or has characters that no URL has")
        try:
            parsed = httpx.URL(url)
            host = _ascii_host(parsed)
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise _refusal("it can't be read as a URL") from None
        if parsed.scheme not in ("http", "https"):
            raise _refusal("it must be an http or https URL")
        authority = url.split("://", 1)[-1].split("/", 1)[0].split("?", 1)[0]
        if "@" in authority:
            raise _refusal("it must have no user name or password")
        if not _PLAIN_PORT.fullmatch(authority):
            raise _refusal("its port must be a plain number")
        if "#" in url or "?" in url:
            raise _refusal("it must have no query or fragment")
        self._check_host(host)
        self._check_port(parsed, host)
        return parsed

    def addresses(self, host: str, port: int) -> list[str]:
        """What to connect to: the host's addresses from one lookup, all of them checked. OSError when it has none."""
        literal = _literal(host)
        answers = [str(literal)] if literal else self._look_up(host, port)
        found = [ip_address(answer) for answer in answers]
        if not found:
            raise OSError("no address")
        if not all(self._admits(host, address) for address in found):
            raise _refusal("its host is not a public address")
        return [str(unmapped(address)) for address in found]

    def _allow(self, entry: str) -> None:
        try:
            self._networks.append(ip_network(entry, strict=False))
        except ValueError:
            if not _NAME.fullmatch(entry):
                raise ValueError(f"{entry!r} is neither a CIDR nor a host name") from None
            self._hosts.add(entry)

    def _check_host(self, host: str) -> None:
        if _literal(host) is not None and "%" not in host:
            return
        if len(host) > MAX_HOST or not _NAME.fullmatch(host) or _NUMBER_AT_THE_END.fullmatch(host):
            raise _refusal("its host is no name and no address")

    def _check_port(self, parsed: httpx.URL, host: str) -> None:
        port = _default_port(parsed) if parsed.port is None else parsed.port
        if not 1 <= port <= 65535:
            raise _refusal("its port must be between 1 and 65535")
        if port < 1024 and port not in (80, 443) and host not in self._hosts:
            raise _refusal("its port must be 80, 443 or above 1023")  # else we could be made to speak to mail or SSH

    def _admits(self, host: str, address: Address) -> bool:
        plain = unmapped(address)
        if is_in(plain, self._networks):
            return True
        if is_public(plain):
            return True
        return host in self._hosts and is_in(plain, PRIVATE) and not is_in(plain, METADATA)

    def _look_up(self, host: str, port: int) -> Sequence[str]:
        """Asks in a thread, because getaddrinfo knows no timeout; a daemon, so that it can't hold an exit."""
        answer: Future[Sequence[str]] = Future()

        def ask() -> None:
            try:
                answer.set_result(self._resolve(host, port))
            except OSError as failed:
                answer.set_exception(failed)

        Thread(target=ask, name="lookup", daemon=True).start()
        return answer.result(min(self._lookup_seconds, remaining()))


class PublicNetwork(httpcore.NetworkBackend):
    """httpcore's way to the network, through the guard: a host is looked up once, and one of the checked addresses is
    connected to, while TLS and the Host header keep the name. Its streams end with the deadline of the work at hand."""

    def __init__(self, public: PublicAddresses):
        self._public = public
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises EsmUrlNotAllowed for an address that we refuse; `timeout` covers the lookup and all addresses."""
        with deadline(remaining() if timeout is None else timeout):
            try:
                addresses = self._public.addresses(host, port)
            except OSError:
                raise httpcore.ConnectError("the name can't be resolved") from None
            for tried, address in enumerate(addresses, start=1):
                # A dead address must leave time for the next one.
                share = _finite(remaining() / (len(addresses) - tried + 1))
                with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                    stream = self._network.connect_tcp(address, port, share, local_address, socket_options)
                    return _TimedStream(stream)
        raise httpcore.ConnectError("none of its addresses answered")

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Never: a partner is not on this machine."""
        raise httpcore.UnsupportedProtocol("no unix sockets")


class _TimedStream(httpcore.NetworkStream):
    """A stream whose every step is bounded by what is left of the deadline, so that slow drips can't add up."""

    def __init__(self, stream: httpcore.NetworkStream):
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _bounded(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _bounded(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        seconds = _bounded(timeout, httpcore.ConnectTimeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, seconds))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _bounded(timeout: float | None, expired: type[httpcore.TimeoutException]) -> float | None:
    left = remaining()
    if left <= 0:
        raise expired("out of time")
    return _finite(left if timeout is None else min(timeout, left))


def _finite(seconds: float) -> float | None:
    return None if seconds == math.inf else seconds


def _literal(host: str) -> Address | None:
    """The address that a host is when it is no name; 127.1, 0x7f000001, 0177.0.0.1 and 2130706433 are addresses too."""
    with suppress(ValueError):
        return ip_address(host)
    with suppress(OSError):
        return IPv4Address(socket.inet_aton(host))
    return None


def _ascii_host(parsed: httpx.URL) -> str:
    return parsed.raw_host.decode("ascii")


def _default_port(parsed: httpx.URL) -> int:
    return 443 if parsed.scheme == "https" else 80


def _refusal(why: str) -> EsmUrlNotAllowed:
    return EsmUrlNotAllowed(f"The ESM API URL is not allowed: {why}", errors=[f"esmApiUrl: {why}"])
