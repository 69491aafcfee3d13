"""Refuses requests that a web page of another site makes a browser send.

On loopback, ``Host`` must name this machine or a configured name: a page whose name was made to lead here (DNS rebinding)
sends its own. Everywhere, ``Origin`` must be that of ``Host`` or of a configured name, where a browser sends one. Other sites
cannot read anything: there are no CORS headers, but for the ``origins`` that are configured, whole and one by one. Cookies are
never asked for: a page shows its token itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.api.problems import MEDIA_TYPE, problem_of
from coordinator.config import Config
from coordinator.errors import ConfigurationError, PermissionDenied

__all__ = ["LOOPBACK", "OriginGuard", "origins_of"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
PREFLIGHT_S = b"600"  # a browser asks again after
_ASKED = b"authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id"
_SHOWN = b"etag, event-cursor, idempotency-replayed, retry-after, www-authenticate"


def origins_of(config: Config) -> frozenset[str]:
    """Take the origins of other sites from the settings.

    Raises: ``ConfigurationError`` for what is none: a pattern, for instance.
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
                f'"{origin[:200]}" in origins is no origin',
                hint="Write each as a browser sends it, in lower case and without a path: https://dashboard.example.",
            )
    return frozenset(origins)


class OriginGuard:
    """An application that lets only requests pass that are meant for it. ``loopback``: it listens there and only there."""

    def __init__(
        self, app: ASGIApp, hosts: Iterable[str], *, loopback: bool, origins: frozenset[str] = frozenset()
    ) -> None:
        self._app = app
        self._origins = origins
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
            origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
            if self._origins and origin.decode("latin-1") in self._origins:
                if scope["method"] == "OPTIONS":
                    await _allow(origin, send)
                    return
                send = _shown(origin, send)
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
            if _netloc(origin) != host and origin not in self._origins and _name(origin) not in self._hosts - LOOPBACK:
                raise PermissionDenied(
                    f'pages of "{origin[:200]}" may not use this daemon',
                    hint="Add their origin to the setting origins (COORDINATOR_ORIGINS) if they should.",
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


async def _allow(origin: bytes, send: Send) -> None:
    """Answer a browser that asks whether a page of this origin may send a request."""
    headers = [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", _ASKED),
        (b"access-control-max-age", PREFLIGHT_S),
        (b"vary", b"Origin"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _shown(origin: bytes, send: Send) -> Send:
    """Let pages of this origin read the answer."""
    allowed = [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _SHOWN),
        (b"vary", b"Origin"),
    ]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *allowed]
        await send(message)

    return sending


async def _refuse(error: PermissionDenied, send: Send) -> None:
    body = msgspec.json.encode(problem_of(error))
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
