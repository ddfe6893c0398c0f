"""Where pictures may be fetched from. Their addresses come from outside, and must not lead into our own network.

An answer of the provider, or whoever a redirect of its host leads to, could name a neighbour of ours: a database's
port, a cloud's metadata service. So the addresses are judged that a name stands for, and as aiohttp's own resolver, so
that what was judged is what is connected to: a name that means something else a moment later gains nothing.

Not public are the special-purpose registries of IANA (RFC 6890 and its updates), written out here because what
`ipaddress` calls global differs between versions of Python.
"""

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

import httpx
from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

_PORTS = frozenset({80, 443})
"""Of public hosts: pictures lie on nothing else, and every other port is somebody's service."""

# fmt: off
_RESERVED_4 = tuple(map(ipaddress.IPv4Network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4",
)))
# fmt: on
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
# 2001::/23 holds Teredo and 2002::/16 is 6to4: both carry an IPv4 address of anybody's choice
_RESERVED_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Forbidden(httpx.TransportError):
    """The address is none that pictures are fetched from; nothing was connected to."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether anybody's host may be there. An IPv4 address inside of an IPv6 one is judged itself."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _RESERVED_4)
    if address.scope_id is not None:
        return False
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(IPv4Address(address.packed[-4:]))
    return address in _GLOBAL_6 and not any(address in network for network in _RESERVED_6)


class Destinations(AbstractResolver):
    """Judges addresses of pictures, and resolves names to those that may be connected to.

    Allowed are public addresses on ports 80 and 443. Where the provider itself (`provider_url`) is on loopback, so is
    all of loopback; where it is reached by plain http, thus within our own network, so is its own host and port.
    `resolver` answers in place of the system's.
    """

    def __init__(self, provider_url: str, *, resolver: AbstractResolver | None = None) -> None:
        provider = URL(provider_url.strip())
        host = provider.raw_host or ""
        self._own = (host, provider.port) if provider.scheme == "http" else None
        literal = _literal(host)
        self._loopback = literal.is_loopback if literal is not None else host == "localhost"
        self._resolver = resolver

    def judge(self, url: URL) -> None:
        """Raises `Forbidden` for an address that no name's resolution can make right."""
        host, port = url.raw_host, url.port
        if url.scheme not in ("http", "https") or not host or port is None:
            raise Forbidden("not an http(s) address")
        if url.raw_user is not None or url.raw_password is not None:
            raise Forbidden("an address with a user's name or password")
        literal = _literal(host)
        if literal is not None:
            if not self._allowed(host, port, literal):
                raise Forbidden(f"{literal} port {port} is not public")
        elif port not in _PORTS and not self._loopback and (host, port) != self._own:
            raise Forbidden(f"port {port} is not one that pictures lie on")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The name's addresses that are allowed. Raises `Forbidden` when there are others only, OSError for none."""
        if self._resolver is None:
            # at the first call: it belongs to the loop that runs then
            self._resolver = ThreadedResolver()
        found = await self._resolver.resolve(host, port, family)
        allowed = [one for one in found if self._allowed(host, port, ipaddress.ip_address(one["host"]))]
        if found and not allowed:
            raise Forbidden(f"{host} port {port} is at {found[0]['host']}, which is not public")
        return allowed

    async def close(self) -> None:
        if self._resolver is not None:
            await self._resolver.close()

    def _allowed(self, host: str, port: int, address: IPv4Address | IPv6Address) -> bool:
        if (host, port) == self._own or (self._loopback and address.is_loopback):
            return True
        return port in _PORTS and is_public(address)


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
