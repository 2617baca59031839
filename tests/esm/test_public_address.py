"""The guard's judgement of addresses, its allow-list, and what becomes of slow or changing resolvers."""

import socket
import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpcore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import EsmUrlNotAllowed
from infra.address_ranges import is_public
from infra.public_address import PublicAddresses, PublicNetwork
from tests.esm.corpus import GOOD_ADDRESSES, HOSTILE_ADDRESSES, PUBLIC


def answering(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    """A resolver that knows one answer."""
    return lambda _host, _port: addresses


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every attempt to connect, of which there must be none."""
    attempts: list[object] = []

    def connect(*arguments: object, **_: object) -> socket.socket:
        attempts.append(arguments)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    return attempts


@pytest.mark.parametrize("address", HOSTILE_ADDRESSES)
def test_a_hostile_address_is_refused_and_never_connected_to(address: str, no_connection: list[object]) -> None:
    assert not is_public(ip_address(address))
    host = f"[{address}]" if ":" in address else address
    public = PublicAddresses(resolve=answering(address))
    for url in (f"http://{host}/", "https://partner.example"):
        with pytest.raises(EsmUrlNotAllowed) as refused:
            public.check_url(url)
        assert address not in str(refused.value)
        assert refused.value.reason == "ESM_URL_NOT_ALLOWED"
    for name in (address, "partner.example"):
        with pytest.raises(EsmUrlNotAllowed) as refused:
            PublicNetwork(public).connect_tcp(name, 443, timeout=1)
        assert address not in str(refused.value)
    assert no_connection == []


@pytest.mark.parametrize("address", GOOD_ADDRESSES)
def test_a_public_address_passes_and_is_what_we_connect_to(address: str, no_connection: list[object]) -> None:
    public = PublicAddresses(resolve=answering(address))
    public.check_url("https://partner.example")
    with pytest.raises(httpcore.ConnectError):
        PublicNetwork(public).connect_tcp("partner.example", 443, timeout=1)
    (attempt,) = no_connection
    assert isinstance(attempt, tuple)
    assert attempt[0] == (address.removeprefix("::ffff:"), 443)


@pytest.mark.parametrize("bad", ["127.0.0.1", "fd00::1", "169.254.169.254"])
@pytest.mark.parametrize("order", [1, -1])
def test_one_bad_address_among_good_ones_refuses_the_name(bad: str, order: int) -> None:
    with pytest.raises(EsmUrlNotAllowed):
        PublicAddresses(resolve=answering(*[PUBLIC, bad][::order])).check_url("https://partner.example")


def test_a_name_that_turns_hostile_after_saving_is_not_connected_to(no_connection: list[object]) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    public = PublicAddresses(resolve=lambda _host, _port: next(answers))
    public.check_url("http://rebinding.example")
    with pytest.raises(EsmUrlNotAllowed):
        PublicNetwork(public).connect_tcp("rebinding.example", 80, timeout=1)
    assert no_connection == []


def test_a_connection_asks_once_and_goes_to_what_was_checked(no_connection: list[object]) -> None:
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return [PUBLIC] if len(asked) == 1 else ["127.0.0.1"]

    with pytest.raises(httpcore.ConnectError):
        PublicNetwork(PublicAddresses(resolve=resolve)).connect_tcp("rebinding.example", 80, timeout=1)
    assert asked == [("rebinding.example", 80)]
    assert [attempt[0] for attempt in no_connection if isinstance(attempt, tuple)] == [(PUBLIC, 80)]


def test_a_dead_address_leaves_time_for_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.2", 0)) as dead:
        port = server.getsockname()[1]
        dead.close()
        public = PublicAddresses(["127.0.0.0/8"], resolve=answering("127.0.0.2", "127.0.0.1"))
        stream = PublicNetwork(public).connect_tcp("partner.example", port, timeout=2)
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", port)
        stream.close()


def test_a_resolver_that_hangs_ends_in_time() -> None:
    released = threading.Event()

    def hang(_host: str, _port: int) -> list[str]:
        released.wait(10)
        return [PUBLIC]

    public = PublicAddresses(resolve=hang, lookup_seconds=0.05)
    with pytest.raises(EsmUrlNotAllowed, match="can't be resolved"):
        public.check_url("https://partner.example")
    with pytest.raises(httpcore.ConnectError):
        PublicNetwork(public).connect_tcp("partner.example", 443, timeout=0.05)
    released.set()


def test_a_name_without_an_address_is_refused() -> None:
    def unknown(_host: str, _port: int) -> list[str]:
        raise socket.gaierror

    for resolve in (unknown, answering()):
        with pytest.raises(EsmUrlNotAllowed, match="can't be resolved"):
            PublicAddresses(resolve=resolve).check_url("https://partner.example")


def test_the_systems_resolver_finds_ourselves_and_is_refused() -> None:
    with pytest.raises(EsmUrlNotAllowed, match="not a public address"):
        PublicAddresses().check_url("http://localhost:8080")


@pytest.mark.parametrize(
    ("allowed", "url", "address"),
    [
        ("127.0.0.0/8", "http://127.0.0.1:8080", ""),
        ("127.0.0.1", "http://2130706433:8080", ""),
        ("127.0.0.0/8", "http://[::ffff:127.0.0.1]:8080", ""),
        ("10.1.0.0/16", "http://onprem.example", "10.1.2.3"),
        ("fd12::/16", "http://onprem.example", "fd12::5"),
        ("onprem.example", "http://OnPrem.example:444/base", "192.168.1.1"),
        ("169.254.169.254/32", "http://onprem.example", "169.254.169.254"),
    ],
)
def test_the_allow_list_lets_in(allowed: str, url: str, address: str) -> None:
    PublicAddresses([allowed], resolve=answering(address)).check_url(url)


@pytest.mark.parametrize(
    ("allowed", "url", "address"),
    [
        ("10.1.0.0/16", "http://onprem.example", "10.2.0.1"),
        ("onprem.example", "http://a.onprem.example", "192.168.1.1"),
        ("onprem.example", "http://onprem.example", "169.254.169.254"),
        ("onprem.example", "http://onprem.example", "169.254.170.2"),
        ("onprem.example", "http://onprem.example", "192.0.0.192"),
        ("onprem.example", "http://onprem.example", "fd00:ec2::23"),
        ("onprem.example", "http://onprem.example", "64:ff9b::a9fe:a9fe"),
        ("onprem.example", "http://onprem.example", "2002:7f00:1::"),
        ("onprem.example", "http://onprem.example", "::127.0.0.1"),
        ("onprem.example", "http://onprem.example", "0.0.0.0"),
        ("onprem.example", "http://onprem.example", "224.0.0.1"),
        ("onprem.example", "http://user@onprem.example", "192.168.1.1"),
        ("127.0.0.0/8", "http://[::1]", ""),
        ("127.0.0.0/8", "ftp://127.0.0.1", ""),
    ],
)
def test_the_allow_list_lets_nothing_else_in(allowed: str, url: str, address: str) -> None:
    with pytest.raises(EsmUrlNotAllowed):
        PublicAddresses([allowed], resolve=answering(address)).check_url(url)


@pytest.mark.parametrize("entry", ["http://x", "10.0.0.0/33", "a b", "", "user@x", "*.example"])
def test_an_allow_list_that_cant_be_read_is_an_error_at_start(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a CIDR nor a host name"):
        PublicAddresses([entry])


@settings(deadline=None)
@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_no_form_of_a_refused_ipv4_address_is_public(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast
    if isinstance(address, IPv4Address):
        number = int(address)
        mapped = IPv6Address((0xFFFF << 32) | number)
        assert is_public(mapped) == is_public(address)
        assert not is_public(IPv6Address(number))
        assert not is_public(IPv6Address((0x2002 << 112) | (number << 80)))
        assert not is_public(IPv6Address((0x64FF9B << 96) | number))


@settings(deadline=None)
@given(st.sampled_from(["127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "224.0.0.0/4"]), st.data())
def test_no_spelling_of_a_number_gets_around(network: str, data: st.DataObject) -> None:
    inside = ip_network(network)
    address = data.draw(st.ip_addresses(network=network))
    assert address in inside
    a, b, c, d = address.packed
    rest = (b << 16) | (c << 8) | d
    spellings = (f"{int(address)}", f"{int(address):#x}", f"0{int(address):o}", f"{a}.{rest}", f"{a:#x}.{b}.0{c:o}.{d}")
    for spelling in spellings:
        with pytest.raises(EsmUrlNotAllowed):
            PublicAddresses(resolve=answering(PUBLIC)).check_url(f"http://{spelling}/")


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_refused_or_passes_and_never_breaks(text: str) -> None:
    public = PublicAddresses(resolve=answering(PUBLIC))
    for url in (text, f"http://{text}", f"https://partner.example{text}"):
        try:
            public.check_url(url)
        except EsmUrlNotAllowed:
            continue
