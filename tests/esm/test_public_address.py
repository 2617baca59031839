"""No hostile URL or address is ever connected to, and good ones still are."""

import socket
import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpcore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import EsmUrlNotAllowed
from infra.public_address import PublicAddresses, PublicNetwork, is_public

PUBLIC = "93.184.216.34"

HOSTILE_ADDRESSES = (
    # this network, private, shared, loopback, link-local
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.254", "169.254.0.1"),
    # protocol assignments, documentation, benchmarks, 6to4 relays, multicast, reserved, broadcast
    *("192.0.0.1", "192.0.0.192", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255"),
    *("192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    # cloud metadata
    *("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"),
    # IPv6: unspecified, loopback, private, link-local, site-local, multicast, discard, documentation
    *("::", "::1", "fc00::1", "fdff::1", "fe80::1", "fec0::1", "ff02::1", "ff0e::1", "100::1", "2001:db8::1"),
    "3fff::1",
    # IPv6 that carries IPv4: mapped, compatible, translated, NAT64, 6to4, Teredo; and segment routing
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:168.63.129.16", "::127.0.0.1"),
    *("::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::1"),
    *("2001:0:7f00:1::", "2001:10::1", "2001:20::1", "5f00::1", "4000::1", "8000::1"),
)  # fmt: skip
GOOD_ADDRESSES = (PUBLIC, "8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::1",
                  "::ffff:8.8.8.8")  # fmt: skip

HOSTILE_URLS = (
    # not http
    *("", "partner.example", "//partner.example", "ftp://partner.example", "file:///etc/passwd", "gopher://x.example/_"),
    *("javascript:alert(1)", "http:partner.example", "http://", "http:///path", "https://?x", "unix:///run/x.sock"),
    # userinfo, fragment, query, characters that parsers disagree on
    *("http://user@partner.example", "http://user:pass@partner.example", "http://@partner.example", "http://:@a.example"),
    *("http://partner.example#", "http://partner.example/#x", "http://partner.example/?a=b", "http://partner.example?"),
    *("http://partner.example\\@127.0.0.1/", "http://partner.example\\.evil.example", " http://partner.example"),
    *("http://partner.example ", "http://partner.example/a b", "http://partner\t.example"),
    "http://partner.example\r\nX: y",
    *("http://partner.example\x00.evil.example", "http://part\u200bner.example", "http://partner.example\u2028"),
    # hosts that are none
    *("http://partner%2eexample", "http://127.0.0.1%2f@x", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/"),
    *("http://[::1", "http://::1/", "http://[::1]x/", "http://[v1.x]/", "http://a..example", "http://.example"),
    *("http://partner.example.", "http://-a.example", "http://a-.example", "http://xn--/", "http://*.example"),
    *("http://1.2.3.4.5", "http://256.1.1.1", "http://partner.0x7f", "http://08.8.8.8", "http://99999999999"),
    f"http://{'a' * 64}.example",
    f"http://{'a.' * 130}example",
    f"http://partner.example/{'a' * 2050}",
    # ports
    *("http://partner.example:0", "http://partner.example:65536", "http://partner.example:-1", "http://partner.example:x"),
    *("http://partner.example:22", "http://partner.example:25", "https://partner.example:6"),
    # every spelling of addresses of our own
    *("http://127.1", "http://127.0.1", "http://2130706433", "http://0x7f000001", "http://0x7f.0.0.1", "http://017700000001"),
    *("http://0177.0.0.1", "http://0177.0x0.1", "http://0", "http://0x0", "http://10.1", "http://3232235521", "http://1"),
    *("http://127。0。0。1", "http://\uff11\uff12\uff17.0.0.1", "http://①②⑦.⓪.⓪.①", "http://2852039166", "http://0xa9fea9fe"),
    *("http://[::1]", "http://[0:0:0:0:0:0:0:1]", "http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]", "http://[::]"),
    *("http://[64:ff9b::127.0.0.1]", "http://[::127.0.0.1]", "http://[fe80::1]", "HTTP://[FD00:EC2::254]"),
)  # fmt: skip
GOOD_URLS = (
    *("http://partner.example", "https://partner.example/", "https://partner.example:8443/base/path", "HTTPS://Partner.Example"),
    *("https://partner_1.example", "https://bücher.example/api", "http://8.8.8.8", "http://134744072", "http://0x08080808"),
    *("http://[2606:4700::1111]:8080/x", "http://[::ffff:8.8.8.8]", "https://partner.example:443", "http://partner.example:80"),
)  # fmt: skip


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


@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_a_hostile_url_is_refused(url: str) -> None:
    with pytest.raises(EsmUrlNotAllowed):
        PublicAddresses(resolve=answering(PUBLIC)).check_url(url)


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_good_url_passes(url: str) -> None:
    PublicAddresses(resolve=answering(PUBLIC)).check_url(url)


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
