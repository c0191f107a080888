"""Which addresses a sink may connect to, where a URL decides: none inside, unless it is listed.

A URL may be written by somebody who has no rights on this host, and a name may lead anywhere, now or a
second later. So the address itself is judged, at the last moment, in every spelling that embeds another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Annotated, Final

from pydantic import BeforeValidator
from yarl import URL

Address = IPv4Address | IPv6Address

# Not private by the registries, and yet inside: services of a cloud's own host, reserved remains.
_INSIDE: Final = tuple(
    map(ip_network, ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20"))
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
# What the system's resolver takes for an address in decimal, octal or hexadecimal digits.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_PRINTABLE = re.compile(r"[!-\[\]^-~]+")  # ASCII without spaces and backslashes


class PeerRefused(OSError):
    """The address is not one to connect to. The text names it."""


class Peers:
    """What may be connected to on behalf of one host.

    A host that says loopback (``localhost``, ``127.0.0.1``, ``[::1]``) may lead to loopback and to nothing
    else, any other host never. Private, link-local and reserved addresses have to be listed.

    Args:
        host: as it stands in the URL, lower case, IPv6 without brackets.
        networks: private ones that are allowed.
    """

    def __init__(self, host: str, networks: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._is_loopback_meant = says_loopback(host)
        self._networks = tuple(networks)

    def check(self, address: str) -> None:
        """Raise unless the address, as a connection is about to be made to it, is allowed.

        Raises:
            PeerRefused: it is not, or is no address.
        """
        try:
            ip = _embedded(ip_address(address.partition("%")[0]))
        except ValueError:
            raise PeerRefused("what is no address is not connected to") from None
        if self._is_loopback_meant:
            if not ip.is_loopback:
                raise PeerRefused(f"{address} is not of this machine, and the URL's host says so")
        elif ip.is_loopback or ip.is_unspecified or ip.is_multicast:
            raise PeerRefused(f"{address} is this machine, or none")
        elif not _is_public(ip) and not any(ip in network for network in self._networks):
            raise PeerRefused(f"{address} is private; list its network in 'allow_private' if it is meant")


def says_loopback(host: str) -> bool:
    """Tell whether a host means this machine by what is written."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: URL) -> str:
    """Return the host that a URL names, in the form that ``Peers`` takes."""
    return (url.raw_host or "").lower().rstrip(".")


def parse_endpoint(text: str) -> URL:
    """Return the URL, to be sent to exactly as it is written.

    Raises:
        ValueError: it is none to post to; the text says why and shows nothing of it.
    """
    if not _PRINTABLE.fullmatch(text):
        raise ValueError("the URL has characters that belong percent-encoded")
    try:
        url = URL(text, encoded=True)
        port = url.explicit_port
    except ValueError:
        raise ValueError("this is no URL; write one like https://example.com/hook") from None
    host = host_of(url)
    if url.scheme not in {"http", "https"} or not host or port == 0:
        raise ValueError("this is no URL to post to; write one like https://example.com/hook")
    if url.raw_user is not None or url.raw_password is not None:
        raise ValueError("user and password do not belong into the URL; use 'credential'")
    if url.raw_fragment:
        raise ValueError("what follows # is never sent; leave it out")
    _check_host(host)
    if url.scheme == "http" and not says_loopback(host):
        raise ValueError("plain http is for this machine only; write https://")
    return url


def parse_network(value: object) -> IPv4Network | IPv6Network:
    """Return the network that a text such as ``10.1.0.0/16`` means.

    Raises:
        ValueError: it is none.
    """
    try:
        return ip_network(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(f"{value!r} is not a network ({error}); write one like 10.1.0.0/16") from None


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(parse_network)]
"""A network, written as ``10.1.0.0/16``."""


def _check_host(host: str) -> None:
    if ":" in host:
        return  # the URL's parser takes nothing but an address
    if _NUMERIC.fullmatch(host):
        try:
            IPv4Address(host)
        except ValueError:
            raise ValueError("the host is a number; write the address with four decimals") from None
    elif not _HOST.fullmatch(host):
        raise ValueError("the host is not a name in ASCII; write it with xn--")


def _embedded(ip: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, if it does: that is where packets go."""
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip.sixtofour is not None:
            return ip.sixtofour
        if ip in _NAT64:
            return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip


def _is_public(ip: Address) -> bool:
    if not ip.is_global or ip.is_multicast or any(ip in network for network in _INSIDE):
        return False
    return isinstance(ip, IPv4Address) or ip in _GLOBAL_UNICAST
