"""Which addresses a delivery may be sent to.

Whoever may register an endpoint makes this server send requests. So the address is checked, not the
name, at each attempt and in the form in which the connection is opened: a name that leads elsewhere
at its next resolution gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, IPv6Network

_Address = IPv4Address | IPv6Address


class Reach(Enum):
    """Who can be at an address."""

    PUBLIC = "public"
    PRIVATE = "private"
    """This machine or a network of its own: for endpoints that a manager registered."""
    FORBIDDEN = "forbidden"
    """Nobody, everybody, or the metadata of a cloud machine."""


_SHARED = ipaddress.ip_network("100.64.0.0/10")  # carriers' networks, and Tailscale's
_PRIVATE_6 = ipaddress.ip_network("fc00::/7")
_PRIVATE_4 = [
    ipaddress.ip_network(net)
    for net in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
]
# IPv6 networks whose addresses lead to an IPv4 address, and the bits behind that address.
_CARRIERS = [
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated, RFC 2765
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (IPv6Network("2002::/16"), 80),  # 6to4
]
_REFUSED_6 = [
    IPv6Network("64:ff9b:1::/48"),  # NAT64 of a network of its own, in a form nobody knows
    IPv6Network("2001::/32"),  # Teredo
    IPv6Network("fec0::/10"),  # site-local, of old
]


def reach_of(address: str) -> Reach:
    """Classify an address as ``getaddrinfo`` writes it. Anything else is forbidden."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return Reach.FORBIDDEN
    return _reach_of_6(found) if isinstance(found, IPv6Address) else _reach_of_4(found)


def _reach_of_4(address: IPv4Address) -> Reach:
    if address in _SHARED or any(address in network for network in _PRIVATE_4):
        return Reach.PRIVATE
    return _public(address)


def _reach_of_6(address: IPv6Address) -> Reach:
    for network, num_bits in _CARRIERS:
        if address in network:
            return _reach_of_4(IPv4Address((int(address) >> num_bits) & 0xFFFFFFFF))
    if address.is_loopback or address in _PRIVATE_6:
        return Reach.PRIVATE
    if int(address) >> 32 == 0 or any(address in network for network in _REFUSED_6):
        return Reach.FORBIDDEN  # ``::`` and the "compatible" addresses, ::a.b.c.d
    return _public(address)


def _public(address: _Address) -> Reach:
    """Neither multicast, link-local (where clouds answer with keys), reserved nor unspecified."""
    is_odd = address.is_multicast or address.is_link_local or address.is_reserved
    return Reach.PUBLIC if address.is_global and not is_odd else Reach.FORBIDDEN


def literal_address(host: str) -> str | None:
    """The address that a host is without a look-up: also ``2130706433``, ``0x7f.1``, ``127.1``.

    ``None`` for a name.
    """
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    return str(found[0][4][0])


def is_local_name(host: str) -> bool:
    """True for names that always mean this machine (RFC 6761)."""
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")
