"""Rejects requests that a web page of another site makes a browser send.

On loopback, ``Host`` must name this machine or a configured name: a page whose name was made to resolve here (DNS
rebinding) sends its own name. Everywhere, ``Origin``, which browsers send, must match ``Host`` or a configured name.
Browsers omit it from some requests, such as those for images; then ``Sec-Fetch-Site`` must be same-origin or none.
Pages of other sites cannot read anything: there are no CORS headers, except for the configured ``origins``, each of
which is written in full. Cookies are never read: a page presents its token itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator.api.problems import ForeignRequest, problem_response
from coordinator.config import Config
from coordinator.errors import ConfigurationError

__all__ = ["OriginGuard", "origin_middleware", "origins_of"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_READ = (b"host", b"origin", b"sec-fetch-site")
_REQUEST_HEADERS = (
    "authorization", "idempotency-key", "if-match", "if-none-match", "if-range", "last-event-id", "range", "repr-digest",
    "traceparent", "tracestate", "x-request-id",
)  # fmt: skip
_RESPONSE_HEADERS = (
    "accept-ranges", "content-disposition", "content-range", "etag", "event-cursor", "idempotency-replayed", "position", "replica-lag", "repr-digest", "retry-after",
    "www-authenticate", "x-request-id",
)  # fmt: skip


def origins_of(config: Config) -> frozenset[str]:
    """Return the origins of other sites in the settings.

    Raises: ``ConfigurationError`` for what is not an origin, such as a pattern.
    """
    origins = [origin.strip() for origin in (config.origins or "").split(",") if origin.strip()]
    for origin in origins:
        netloc = _netloc(origin)
        if (
            netloc is None
            or "*" in netloc
            or "@" in netloc
            or origin != f"{urlsplit(origin).scheme}://{netloc}".lower()
        ):
            raise ConfigurationError(
                f'invalid origin "{origin[:200]}" in the setting origins',
                hint="Write each as a browser sends it, in lower case and without a path: https://dashboard.example.",
            )
    return frozenset(origins)


def origin_middleware(config: Config, *, loopback: bool) -> list[Middleware]:
    """Return the middleware that admits only pages of the configured origins. ``loopback``: the daemon listens only there."""
    origins = origins_of(config)
    middleware = [Middleware(OriginGuard, config.names, loopback=loopback, origins=origins)]
    if origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "PUT"),
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_RESPONSE_HEADERS,
        )
        middleware.append(cors)
    return middleware


class OriginGuard:
    """Middleware that passes only requests that are meant for this daemon."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str], *, loopback: bool, origins: frozenset[str]) -> None:
        self._app = app
        self._origins = origins
        self._hosts = frozenset(host.lower() for host in hosts) | LOOPBACK
        self._loopback = loopback
        self._check = lru_cache(128)(self._check_headers)  # most clients always send the same headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or respond with 403."""
        try:
            self._check(tuple([header for header in scope["headers"] if header[0] in _READ]))
        except ForeignRequest as error:
            await problem_response(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check_headers(self, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
        sites = {value.lower() for name, value in headers if name == b"sec-fetch-site"}
        host = hosts[0] if len(hosts) == 1 else ""
        if self._loopback and _name("//" + host) not in self._hosts:
            raise ForeignRequest(
                f'this daemon does not have the name "{host[:200]}"',
                hint="Use localhost, or add the name to the setting hosts (COORDINATOR_HOSTS).",
            )
        for origin in origins:
            if _netloc(origin) != host and origin not in self._origins and _name(origin) not in self._hosts - LOOPBACK:
                raise ForeignRequest(
                    f'pages of "{origin[:200]}" may not use this daemon',
                    hint="To allow them, add their origin to the setting origins (COORDINATOR_ORIGINS).",
                )
        if not origins and sites - {b"same-origin", b"none"}:
            raise ForeignRequest(
                "pages of other sites may not use this daemon",
                hint="Enter the address yourself, or call it with fetch from an origin in the setting origins (COORDINATOR_ORIGINS).",
            )


def _netloc(text: str) -> str | None:
    """Return the host and port of an origin; None if it has none."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    return parts.netloc or None if parts.scheme in ("http", "https") else None


def _name(text: str) -> str | None:
    try:
        return urlsplit(text).hostname
    except ValueError:
        return None
