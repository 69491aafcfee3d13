"""Requests to an application in the same process, without a connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import anyio
import msgspec
from starlette.types import Message

from coordinator.api.access import IDENTIFIED
from coordinator.api.app import Application
from coordinator.api.principal import Principal

__all__ = ["Local", "Reply"]


class Reply(msgspec.Struct, frozen=True):
    """The response to a request: its status and its whole body."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status < 300


class Local:
    """An application, the headers that each request to it has, and the client that sends it, if that is another one.

    ``principal`` is who was just found to be behind them, and makes the first request; for later ones, their token is checked again.
    """

    def __init__(
        self,
        app: Application,
        headers: Iterable[tuple[bytes, bytes]] = (),
        principal: Principal | None = None,
        client: Sequence[Any] | None = None,
    ) -> None:
        self._app = app
        self._client = client
        self._headers = [(b"host", b"localhost"), *headers]
        self._principal = principal

    async def get(self, path: str, query: Mapping[str, str | list[str]]) -> Reply:
        """Send a GET. A list in ``query`` repeats its name."""
        return await self._request("GET", path, urlencode(query, doseq=True), b"")

    async def post(self, path: str, body: bytes, query: Mapping[str, str] | None = None) -> Reply:
        """Send a POST with a JSON body."""
        return await self._request("POST", path, urlencode(query or {}), body)

    async def _request(self, method: str, path: str, query: str, body: bytes) -> Reply:
        principal, self._principal = self._principal, None
        status = 500
        parts: list[bytes] = []
        sent = False

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await anyio.sleep_forever()  # the client stays until it has the response
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(message.get("body", b""))

        await self._app(
            {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": method,
                "scheme": "http",
                "path": path,
                "raw_path": quote(path, safe="/").encode(),
                "root_path": "",
                "client": self._client,
                "query_string": query.encode(),
                "headers": [
                    *self._headers,
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(body)),
                ],
                "extensions": {},
                IDENTIFIED: principal,
            },
            receive,
            send,
        )
        return Reply(status, b"".join(parts))
