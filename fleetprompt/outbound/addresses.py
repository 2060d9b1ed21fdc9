"""Which hosts and addresses a tenant-supplied URL may reach (traps T24 and 30)."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

# Not every Python release agrees with the registries about "global", so the ranges are listed:
# RFC 6890 and its successors, and one public address that answers from inside a cloud's machines.
_REFUSED_IPV4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_PUBLIC_IPV6 = IPv6Network("2000::/3")
# Within it: IETF protocols with Teredo, documentation, and 6to4, which hides an IPv4 address.
_REFUSED_IPV6 = tuple(
    IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


def is_reachable(address: str, allowed: Sequence[Network]) -> bool:
    """Whether a connection to the address is permitted.

    Public unicast is; anything else only inside one of the ``allowed`` networks of its own family,
    so that an IPv4 address wrapped into IPv6 (mapped, 6to4, NAT64) does not pass as itself.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if any(found.version == network.version and found in network for network in allowed):
        return True
    if isinstance(found, IPv4Address):
        return not any(found in block for block in _REFUSED_IPV4)
    return found in _PUBLIC_IPV6 and not any(found in block for block in _REFUSED_IPV6)


def as_literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that the host is written as, if it is one in its usual form."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_disguised_literal(host: str) -> bool:
    """Whether resolvers read the name as an IPv4 address that it does not look like.

    ``127.1``, ``2130706433``, ``0x7f.1`` and ``0177.0.0.1``: the last label is a number (WHATWG
    URL, "ends in a number"), but the host is not four plain decimal parts.
    """
    last = host.rsplit(".", 1)[-1].lower()
    numeric = last.isdigit() or (last.startswith("0x") and _is_hex(last[2:]))
    return numeric and as_literal(host) is None


def _is_hex(digits: str) -> bool:
    return all(digit in "0123456789abcdef" for digit in digits)
