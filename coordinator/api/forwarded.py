"""Clients behind reverse proxies: the client's address of a request that a trusted proxy forwarded.

A proxy of the setting ``trusted_proxies`` appends the address that it sees to ``X-Forwarded-For``. The client is the last address there
that is not itself of a trusted proxy: what stands before it, anybody can send. From any other peer the header is ignored, and so is a value
that is not an IP address: then the peer is the client, as without a proxy. uvicorn's middleware reads the header; nothing else of
it is believed, and the header ``Forwarded`` is not read, since a proxy that writes one of the two passes the other one on as it came.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from coordinator.config import Config
from coordinator.errors import ConfigurationError
from coordinator.model.network import networks_of

__all__ = ["FORWARDING", "Forwarded", "trusted_proxies"]

FORWARDING = frozenset({b"x-forwarded-for", b"forwarded"})  # a request with one of them has passed a proxy

_PEER = "coordinator.peer"  # in a scope, until the header is read


def trusted_proxies(config: Config) -> list[str]:
    """Return the networks of the proxies that are believed.

    Raises: ``ConfigurationError``.
    """
    networks = networks_of(config.trusted_proxies, "trusted_proxies")
    if any(network.prefixlen == 0 for network in networks):
        raise ConfigurationError(
            "the setting trusted_proxies holds a network of all addresses, so every client could choose its address",
            hint="Name the addresses or networks of your proxies, such as 10.1.0.0/16.",
        )
    return [str(network) for network in networks]


class Forwarded:
    """Middleware around everything else, where proxies are trusted."""

    def __init__(self, app: ASGIApp, proxies: list[str]) -> None:
        self._app = app
        self._reader = cast("ASGIApp", ProxyHeadersMiddleware(cast("Any", self._read), proxies))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, in the name of its client."""
        peer, scheme = scope.get("client"), scope.get("scheme")
        if peer is not None:  # on a socket for both families, a peer of IPv4 has an address of IPv6
            scope["client"] = (_plain(peer[0]) or peer[0], peer[1])
        scope[_PEER] = scope.get("client"), scheme
        await self._reader(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer, scope["scheme"] = scope.pop(_PEER)
        if scope.get("client") != peer:
            address = _plain(scope["client"][0])
            scope["client"] = peer if address is None else (address, 0)
        await self._app(scope, receive, send)


def _plain(text: str) -> str | None:
    """Return an IP address in its one form, without a zone; None for any other text."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
