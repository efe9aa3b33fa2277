"""Which network addresses a notification may go to.

Whoever names an endpoint makes this server send a request. So that nobody reaches by it what only the
server's own network should, a name is looked up at the moment of sending, every address that it stands for
must be a public one, and the connection is made to the very address that was checked: a name that stands for
another address a moment later (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

URL_LENGTH_MAX: Final = 500
_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The IP addresses that a host name stands for."""


class AddressRefused(Exception):
    """Nothing is sent there; the message is one sentence."""


def check_url(url: str, *, private_allowed: bool) -> None:
    """Whether notifications could go to this URL at all; its name is looked up only when they do.

    Raises AddressRefused.
    """
    if len(url) > URL_LENGTH_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise AddressRefused(f"An endpoint's URL has at most {URL_LENGTH_MAX} plain characters.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise AddressRefused("An endpoint looks like https://shop.example/webhooks.") from error
    if not host or port == 0 or parts.scheme not in ("https", "http") or parts.fragment:
        raise AddressRefused("An endpoint looks like https://shop.example/webhooks.")
    if parts.username is not None or parts.password is not None:
        raise AddressRefused("An endpoint's URL holds no user and no password.")
    if private_allowed:
        return
    if parts.scheme != "https":
        raise AddressRefused(
            "Notifications are sent by https only, such as to https://shop.example/webhooks."
        )
    try:
        literal = ip_address(host)
    except ValueError:
        return
    if not is_public(literal):
        raise AddressRefused("Notifications are not sent to private addresses.")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether anybody's address on the internet, and not one that leads back into our own network."""
    if isinstance(address, IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not address.is_loopback
        and not address.is_link_local
    )


async def resolve(host: str, port: int) -> list[str]:
    """By the machine's own resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class GuardedNetwork(AsyncNetworkBackend):
    """Connects for httpcore, to public addresses only, unless private ones are allowed."""

    def __init__(self, *, private_allowed: bool, resolve: Resolve = resolve) -> None:
        self._private_allowed = private_allowed
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        try:
            texts = await self._resolve(host, port)
            addresses = [ip_address(text.partition("%")[0]) for text in texts]
        except (OSError, ValueError, UnicodeError) as error:
            raise AddressRefused(f"The name {host} could not be looked up.") from error
        if not addresses:
            raise AddressRefused(f"The name {host} stands for no address.")
        # One private address among public ones is no accident either.
        if not self._private_allowed and not all(map(is_public, addresses)):
            raise AddressRefused(f"{host} is a private address, and notifications are not sent to those.")
        return await self._network.connect_tcp(
            str(addresses[0]), port, timeout, local_address, socket_options
        )

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> AsyncNetworkStream:
        raise AddressRefused("Notifications are not sent to local sockets.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to, where it does."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if any(address in network for network in _NAT64) or int(address) >> 32 == 0:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return address.sixtofour
    if address in _TEREDO and address.teredo is not None:
        return address.teredo[1]
    return None
