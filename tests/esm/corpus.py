"""Hostile URLs and resolver answers, none of which may ever be connected to, and good ones that must be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

PUBLIC = "93.184.216.34"


@dataclass(frozen=True)
class Hostile:
    """A URL, and what DNS answers for its host if that is a name."""

    url: str
    answers: tuple[str, ...] = (PUBLIC,)

    def __str__(self) -> str:
        return ascii(self.url[:60]) + ("" if self.answers == (PUBLIC,) else f" = {' '.join(self.answers)}")


@dataclass(frozen=True)
class Good:
    """A URL, the address and port to connect to, and the name that the server must see."""

    url: str
    address: str
    port: int
    name: str

    def __str__(self) -> str:
        return ascii(self.url)


# IANA's special-purpose registries (2025-10), what is special without being in them, and clouds' metadata services.
REFUSED_NETWORKS = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32", "192.0.0.170/31", "192.0.2.0/24"),
    *("192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15"),
    *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32"),
    *("169.254.169.254/32", "169.254.170.2/32", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"),
    *("::/128", "::1/128", "::/96", "::ffff:0:0/104", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64"),
    *("100:0:0:1::/64", "2001::/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48", "2001:3::/32"),
    *("2001:4:112::/48", "2001:10::/28", "2001:20::/28", "2001:30::/28", "2001::/23", "2001:db8::/32", "2002::/16"),
    *("2620:4f:8000::/48", "3fff::/20", "5f00::/16", "4000::/3", "8000::/1", "fc00::/7", "fe80::/10", "fec0::/10"),
    *("ff00::/8", "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128", "fd00:42::42/128"),
)  # fmt: skip


def _of_networks() -> Iterator[str]:
    for network in map(ip_network, REFUSED_NETWORKS):
        for offset in (0, network.num_addresses // 2, network.num_addresses - 1):
            yield str(network[offset])


HOSTILE_ADDRESSES = tuple(dict.fromkeys(_of_networks()))
# Addresses that are worth reaching from inside: each is spelled in all ways that some resolver understands.
COVETED = ("127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.100.100.200", "168.63.129.16",
           "0.0.0.0")  # fmt: skip


def spellings(text: str) -> list[str]:
    """An IPv4 address as a host: decimal, hexadecimal, octal, mixed and short."""
    address = IPv4Address(text)
    number, (a, b, c, d) = int(address), address.packed
    return [
        *(f"{number}", f"{number:#x}", f"{number:#X}", f"0{number:o}", f"00{number:o}", f"0x{number:010x}"),
        *(f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{number & 0xFFFF}", f"{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        *(f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a:#x}.{b}.0{c:o}.{d}", f"{a}.{b}.{c}.{d:#x}", f"0{a:o}.{b:#x}.{c}.{d}"),
        *(f"{text}.", "\uff0e".join(text.split(".")), "\u3002".join(text.split(".")), "\uff61".join(text.split("."))),
        *("".join(chr(0xFEE0 + ord(each)) for each in text), f"{text[:-1]}%3{text[-1]}", f"[{text}]"),
    ]  # fmt: skip


def inside_ipv6(text: str) -> list[str]:
    """An IPv4 address carried by an IPv6 one: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP; zones."""
    number = int(IPv4Address(text))
    high, low = number >> 16, number & 0xFFFF
    teredo = IPv6Address((0x20010000 << 96) | (0x41D0E9F9 << 64) | (number ^ 0xFFFFFFFF))
    return [
        *(f"::ffff:{text}", f"::ffff:{high:x}:{low:x}", f"0:0:0:0:0:FFFF:{high:X}:{low:X}", f"::{text}"),
        *(f"::ffff:0:{text}", f"64:ff9b::{text}", f"64:ff9b:1::{text}", f"64:ff9b:1:fffe::{high:x}:{low:x}"),
        *(f"2002:{high:x}:{low:x}::", f"2002:{high:x}:{low:x}::1", f"2001:0:{high:x}:{low:x}::", f"{teredo}"),
        *(f"fe80::5efe:{text}", f"::ffff:{text}%25eth0", f"::ffff:{text}%eth0", f"fe80::{high:x}%251"),
    ]


_NO_HTTP = (
    *("", "partner.example", "//partner.example", "ftp://partner.example", "file:///etc/passwd", "gopher://x.example/_"),
    *("javascript:alert(1)", "http:partner.example", "http://", "http:///path", "https://?x", "unix:///run/x.sock"),
    *("ws://partner.example", "wss://partner.example", "http+unix://%2Frun%2Fx.sock", "dict://partner.example:11211"),
    *("ldap://partner.example", "data:text/html,x", "view-source:http://partner.example", "http:/partner.example"),
    *("http:///partner.example", "https:127.0.0.1", "httpx://partner.example", "jar:http://partner.example!/"),
)  # fmt: skip
_MISREAD = (
    # userinfo, fragment, query, characters that parsers disagree on
    *("http://user@partner.example", "http://user:pass@partner.example", "http://@partner.example", "http://:@a.example"),
    *("http://user:@partner.example", "http://partner.example@127.0.0.1", "http://partner.example:80@127.0.0.1"),
    *("http://127.0.0.1@partner.example", "http://partner.example;@127.0.0.1", "http://partner.example&@127.0.0.1"),
    *("http://a@b@127.0.0.1", "http://partner.example%40127.0.0.1", "http://partner.example\uff20127.0.0.1"),
    *("http://partner.example#", "http://partner.example/#x", "http://partner.example/?a=b", "http://partner.example?"),
    *("http://127.0.0.1#.partner.example", "http://127.0.0.1?.partner.example", "http://partner.example#@127.0.0.1/"),
    *("http://127.0.0.1\uff03.partner.example", "http://127.0.0.1\uff1f.partner.example", "http://127.0.0.1\uff0f.a.example"),
    *("http://partner.example\\@127.0.0.1/", "http://partner.example\\.evil.example", " http://partner.example"),
    *("http://127.0.0.1\\@partner.example", "http:\\\\127.0.0.1", "http:/\\127.0.0.1", "http://127.0.0.1:80\\@a.example"),
    *("http://partner.example ", "http://partner.example/a b", "http://partner\t.example", "ht\ntp://partner.example"),
    *("http://partner.example\r\nX: y", "http://partner.example/\r\nX: y", "http://partner.example\n", "\thttp://a.example"),
    *("http://partner.example\x00.evil.example", "http://part\u200bner.example", "http://partner.example\u2028"),
    *("http://partner.example\x7f", "http://partner.example\u00a0", "http://partner.example\u3000", "\ufeffhttp://a.example"),
    *("http://partner\u00ad.example", "http://partner\u2060.example", "http://partner\u202e.example"),
    *("http://127.0.0.1%2f@x", "http://127.0.0.1%00.partner.example", "http://127.0.0.1%23.partner.example"),
    *("http://%31%32%37.0.0.1", "http://%6c%6f%63%61%6c%68%6f%73%74", "http://127.0.0.1%09", "http://partner%2eexample"),
)  # fmt: skip
_NO_HOST = (
    *("http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[2606:4700::1111%25eth0]/", "http://[::1%2525lo]/"),
    *("http://[::1", "http://::1/", "http://[::1]x/", "http://[v1.x]/", "http://a..example", "http://.example"),
    *("http://[]", "http://[[::1]]", "http://[::1]:80:80", "http://]::1[", "http://[::g]", "http://[1:2:3:4:5:6:7]"),
    *("http://partner.example.", "http://-a.example", "http://a-.example", "http://xn--/", "http://*.example"),
    *("http://1.2.3.4.5", "http://256.1.1.1", "http://partner.0x7f", "http://08.8.8.8", "http://99999999999"),
    *("http://4294967296", "http://0x100000000", "http://040000000000", "http://1.16777216", "http://-1", "http://0x"),
    *("http://0b1.1", "http://1e3.1", "http://127.0.0.01", "http://0300.0250.1.1", "http://127..1", "http://.127.0.0.1"),
    *("http://localhost.", "http://127.0.0.1.", "http://partner.example\u3002", "http://$partner.example", "http://a,b.example"),
    f"http://{'a' * 64}.example", f"http://{'a.' * 130}example", f"http://partner.example/{'a' * 2050}",
)  # fmt: skip
_NO_PORT = (
    *("http://partner.example:0", "http://partner.example:65536", "http://partner.example:-1", "http://partner.example:x"),
    *("http://partner.example:22", "http://partner.example:25", "https://partner.example:6", "http://partner.example:1023"),
    *("http://partner.example:+80", "http://partner.example:80_80", "http://partner.example:\uff18\uff10", "http://a.example:"),
    *("http://partner.example:0x50", "http://partner.example:80:80", "http://partner.example:000443", "http://a.example:4e2"),
    *("http://8.8.8.8:53", "http://[2606:4700::1111]:23", "http://partner.example:3306.5", "http://partner.example:\u0668\u0660"),
)  # fmt: skip
# Digits and letters that Unicode folds to ASCII ones.
_LOOK_ALIKES = (
    *("http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460", "http://\U0001d7cf\U0001d7d0\U0001d7d5.0.0.1", "http://\u0967\u0968\u096d.0.0.1"),
    *("http://\u0661\u0662\u0667.\u0660.\u0660.\u0661", "http://127\u2024\u0030.0.1", "http://\u24db\u24de\u24d2alhost"),
    *("http://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54", "http://loc\u00aalhost"),
    *("http://localho\u017ft", "http://\u2113ocalhost"),
    *("http://\uff10\uff58\uff17\uff46.1", "http://169\u3002254\u3002169\u3002254", "http://\u2488\u2488", "http://1\u20e32.1"),
    *("http://[\uff1a\uff1a1]", "http://xn--localhost-", "http://\u2460.1", "http://\u3002127\u30020\u30020\u30021"),
)  # fmt: skip
_INTERNAL_NAMES = {
    "localhost": "127.0.0.1", "ip6-localhost": "::1", "localhost.localdomain": "127.0.0.1", "LOCALHOST": "127.0.0.1",
    "metadata.google.internal": "169.254.169.254", "metadata": "169.254.169.254", "instance-data": "169.254.169.254",
    "metadata.azure.internal": "169.254.169.254", "kubernetes.default.svc": "10.96.0.1",
    "host.docker.internal": "172.17.0.1", "rabbitmq": "172.18.0.4", "postgres.internal": "10.0.0.9",
    "127.0.0.1.nip.io": "127.0.0.1", "7f000001.nip.io": "127.0.0.1",
    "169-254-169-254.sslip.io": "169.254.169.254", "localtest.me": "127.0.0.1", "lvh.me": "127.0.0.1",
    "\u0142ocalhost.example": "127.0.0.1", "l\u043ecalhost": "127.0.0.1", "xn--lcalhost-nbh": "127.0.0.1",
    "1e3": "127.0.0.1", "a_b.example": "::ffff:10.0.0.1", "router.fritz.box": "192.168.178.1",
}  # fmt: skip


def _in_url(host: str) -> str:
    return f"http://[{host}]/" if ":" in host and not host.startswith("[") else f"http://{host}/"


def _hostile() -> Iterator[Hostile]:
    for url in (*_NO_HTTP, *_MISREAD, *_NO_HOST, *_NO_PORT, *_LOOK_ALIKES):
        yield Hostile(url)
    for text in COVETED:
        yield from (Hostile(_in_url(host)) for host in (*spellings(text), *inside_ipv6(text)))
    yield from (Hostile(_in_url(address)) for address in HOSTILE_ADDRESSES)
    yield from (Hostile(f"https://{name}:8443/api", (address,)) for name, address in _INTERNAL_NAMES.items())
    # CNAMEs are followed by the resolver: what counts are the addresses at the end.
    for number, address in enumerate(HOSTILE_ADDRESSES):
        mixed = ((address,), (PUBLIC, address), (address, PUBLIC), (PUBLIC, "2606:4700::1111", address))[number % 4]
        yield Hostile(f"https://name-{number}.example/api", mixed)
    yield Hostile("https://nowhere.example", ())


HOSTILE = tuple({(each.url, each.answers): each for each in _hostile()}.values())

# Just outside of the refused ranges, and some that are well known.
GOOD_ADDRESSES = (
    *(PUBLIC, "8.8.8.8", "1.0.0.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
    *("128.0.0.1", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.1", "192.0.1.0", "192.0.3.0"),
    *("192.31.195.255", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255"),
    *("198.20.0.0", "198.51.99.255", "203.0.114.0", "223.255.255.255", "168.63.129.15", "168.63.129.17"),
    *("2606:4700::1111", "2a00:1450:4001::1", "2001:200::1", "2001:db7:ffff::1", "2001:db9::1", "2003::1"),
    *("2620:4f:7fff::1", "2620:4f:8001::1", "3ffe::1", "2400:cb00::1"),
)  # fmt: skip


def _good(url: str, address: str, port: int, name: str) -> Good:
    return Good(url, address, port, name)


GOOD = (
    *(_good(_in_url(address), address, 80, address) for address in GOOD_ADDRESSES),
    _good("http://partner.example", PUBLIC, 80, "partner.example"),
    _good("https://partner.example/", PUBLIC, 443, "partner.example"),
    _good("https://partner.example:8443/base/path", PUBLIC, 8443, "partner.example"),
    _good("HTTPS://Partner.Example", PUBLIC, 443, "partner.example"),
    _good("https://partner.example:443", PUBLIC, 443, "partner.example"),
    _good("http://partner.example:65535", PUBLIC, 65535, "partner.example"),
    _good("https://partner_1.example", PUBLIC, 443, "partner_1.example"),
    _good("https://b\u00fccher.example/api", PUBLIC, 443, "xn--bcher-kva.example"),
    _good("https://xn--bcher-kva.example/api", PUBLIC, 443, "xn--bcher-kva.example"),
    _good("http://\u0442\u0435\u0441\u0442.example", PUBLIC, 80, "xn--e1aybc.example"),
    _good("https://fa\u00df.example", PUBLIC, 443, "xn--fa-hia.example"),
    _good("http://partner\u3002example", PUBLIC, 80, "partner.example"),
    _good("http://134744072", "8.8.8.8", 80, "134744072"),
    _good("http://0x08080808", "8.8.8.8", 80, "0x08080808"),
    _good("http://8.8.2056:8080", "8.8.8.8", 8080, "8.8.2056"),
    _good("http://[2606:4700::1111]:8080/x", "2606:4700::1111", 8080, "2606:4700::1111"),
    _good("http://[2606:4700:0:0:0:0:0:1111]", "2606:4700::1111", 80, "2606:4700:0:0:0:0:0:1111"),
    _good("http://[::ffff:8.8.8.8]", "8.8.8.8", 80, "::ffff:8.8.8.8"),
    _good("http://[::ffff:808:808]", "8.8.8.8", 80, "::ffff:808:808"),
    _good("https://partner.example/a;b/@c/..;/d", PUBLIC, 443, "partner.example"),
    _good("http://partner.example//double/slash/", PUBLIC, 80, "partner.example"),
    _good("https://a.b.c.d.e.f.partner.example", PUBLIC, 443, "a.b.c.d.e.f.partner.example"),
    _good("https://1password.example", PUBLIC, 443, "1password.example"),
    _good("https://127.0.0.1.example", PUBLIC, 443, "127.0.0.1.example"),
    _good("https://localhost.example", PUBLIC, 443, "localhost.example"),
    _good(f"https://{'a' * 63}.example", PUBLIC, 443, f"{'a' * 63}.example"),
)  # fmt: skip


def answers_of(case: Hostile) -> Sequence[str]:
    """What a resolver says, whatever it is asked."""
    if not case.answers:
        raise OSError("no such name")
    return case.answers
