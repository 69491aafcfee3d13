"""Refuses requests that a web page of another site makes a browser send.

On loopback, ``Host`` must name this machine or a configured name: a page whose name was made to lead here (DNS rebinding)
sends its own. Everywhere, ``Origin`` must be that of ``Host`` or of a configured name, where a browser sends one. No
cross-origin answer is ever allowed (no CORS headers): other sites cannot read anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from coordinator.api.problems import MEDIA_TYPE, problem_of
from coordinator.errors import PermissionDenied

__all__ = ["LOOPBACK", "OriginGuard"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class OriginGuard:
    """An application that lets only requests pass that are meant for it. ``loopback``: it listens there and only there."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str], *, loopback: bool) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts) | LOOPBACK
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] == ScopeType.HTTP:
            try:
                self._check([(name, value) for name, value in scope["headers"] if name in (b"host", b"origin")])
            except PermissionDenied as error:
                await _refuse(error, send)
                return
        await self._app(scope, receive, send)

    def _check(self, headers: list[tuple[bytes, bytes]]) -> None:
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
        host = hosts[0] if len(hosts) == 1 else ""
        if self._loopback and _name("//" + host) not in self._hosts:
            raise PermissionDenied(
                f'this daemon is not called "{host[:200]}"',
                hint="Use localhost, or add the name to the setting hosts (COORDINATOR_HOSTS).",
            )
        for origin in origins:
            if _netloc(origin) != host and _name(origin) not in self._hosts - LOOPBACK:
                raise PermissionDenied(
                    f'pages of "{origin[:200]}" may not use this daemon',
                    hint="Add the name to the setting hosts (COORDINATOR_HOSTS) if they should.",
                )


def _netloc(text: str) -> str | None:
    """Give the host and port of an origin; None where there is none."""
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


async def _refuse(error: PermissionDenied, send: Send) -> None:
    body = msgspec.json.encode(problem_of(error))
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
