"""Which addresses are public, private, or a cloud's metadata service, by IANA's special-purpose registries."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Where clouds hand out credentials and more, some of it on addresses that on-premises networks use, too.
METADATA: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "169.254.0.0/16",
            "fe80::/10",
            "168.63.129.16",  # Azure
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "fd00:ec2::/32",  # Amazon
            "fd00:42::42",  # Scaleway
            "fd20:ce::254",  # Google
        ),
    )
)
# Where a partner on premises may be. Nothing that carries an IPv4 address inside an IPv6 one: what it leads to is not
# what it looks like.
PRIVATE: tuple[Network, ...] = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"),
    )
)
# What ipaddress.is_global lets through, or lets through in some Python versions.
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "168.63.129.16/32",  # Azure's metadata and DNS, in public space
            "192.0.0.0/24",
            "192.31.196.0/24",  # AS112, often a network's own name servers; so are the next and 2620:4f:8000::/48
            "192.175.48.0/24",
            "192.52.193.0/24",  # multicast tunnels
            "192.88.99.0/24",  # 6to4 relays
            "198.18.0.0/15",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "2001::/23",  # Teredo, ORCHID and other protocol assignments
            "2001:db8::/32",
            "2002::/16",  # 6to4: carries an IPv4 address of the sender's choice
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)
# The only IPv6 space that is handed out for global use. It leaves out ::/96 (IPv4-compatible), 64:ff9b::/96 and
# 64:ff9b:1::/48 (NAT64), 5f00::/16, fc00::/7, fe80::/10, fec0::/10, ff00::/8 and all that is not yet assigned.
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")


def is_public(address: Address) -> bool:
    """Whether an address is globally reachable unicast, IPv4-mapped ones judged by what they map to."""
    plain = unmapped(address)
    if isinstance(plain, IPv6Address) and plain not in _GLOBAL_UNICAST_V6:
        return False
    return plain.is_global and not plain.is_multicast and not is_in(plain, _NOT_PUBLIC)


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def unmapped(address: Address) -> Address:
    """What an IPv4-mapped address maps to; any other as it is."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
