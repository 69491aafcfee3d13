"""A request as the handlers see it: Starlette's, read strictly and within limits."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette import requests
from starlette.types import Receive, Scope, Send

from coordinator.api.endpoint import decode_hook
from coordinator.api.memory import SMALL_BYTES, Allotment
from coordinator.api.principal import Principal
from coordinator.api.problems import MalformedRequest, TooLarge, UnsupportedMediaType
from coordinator.api.shape import shape_hint
from coordinator.errors import InvalidArgument
from coordinator.model.json import exactly_decoded

__all__ = ["Request"]

QUERY_FIELDS = 2000
HEADER_MAX = 1000
DISCARD_FACTOR = 16


class Request(requests.Request):
    """One request. ``argument`` is the part of the path that its parameter matched; ``hold`` is its memory."""

    def __init__(  # noqa: PLR0917
        self, scope: Scope, receive: Receive, send: Send, argument: str | None, principal: Principal, hold: Allotment
    ) -> None:
        super().__init__(scope, receive, send)
        self.argument = argument
        self.principal = principal
        self.hold = hold

    def header(self, name: str) -> str | None:
        """Return a header's value.

        Raises: ``MalformedRequest``.
        """
        value = self.headers.get(name)
        if value is not None and not (value.isascii() and 0 < len(value) <= HEADER_MAX):
            raise MalformedRequest(
                f"the header {name} is empty, not ASCII, or too long",
                hint=f"Send 1 to {HEADER_MAX} ASCII characters, or omit it.",
            )
        return value

    def query(self) -> list[tuple[str, str]]:
        """Return the names and values of the query.

        Raises: ``MalformedRequest``.
        """
        raw: bytes = self.scope["query_string"]
        if not raw:
            return []
        try:
            return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS)
        except ValueError as error:
            raise MalformedRequest(
                f"invalid query: {error}", hint="Write name=value&name=value, in UTF-8, with %XX where needed."
            ) from None

    async def decode(self, type: type[Any], max_bytes: int, copies: int, limit: str) -> Any:
        """Read the JSON body as ``type``; its bytes are held ``copies`` times. ``limit`` says what sets ``max_bytes``.

        Raises: ``UnsupportedMediaType``, ``TooLarge``, ``MalformedRequest``, ``Overloaded``; ``InvalidArgument`` for JSON of
        another shape.
        """
        media_type = (self.header("content-type") or "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMediaType(
                f'unsupported media type "{media_type}"' if media_type else "the body has no media type",
                hint="Send JSON, with the header Content-Type: application/json",
            )
        data = await self.body_within(max_bytes, copies, limit)
        try:
            return exactly_decoded(data, type, decode_hook)
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"invalid body: {error}", hint=shape_hint(type, error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedRequest(
                f"the body is not JSON: {str(error).removeprefix('JSON is malformed: ')}",
                hint="Send one JSON object, in UTF-8.",
            ) from None

    async def body_within(self, max_bytes: int, copies: int, limit: str) -> bytes:
        """Read the body; ``limit`` says what sets ``max_bytes``. Read on for a while past the limit, without keeping it, so that the client sees the response.

        Raises: ``TooLarge``, ``MalformedRequest``, ``Overloaded``.
        """
        parts = []
        size = 0
        try:
            async for part in self.stream():
                size += len(part)
                if size <= max_bytes:
                    if size > SMALL_BYTES:
                        await self.hold.reserve(len(part) * copies)
                    parts.append(part)
                elif size > max_bytes * DISCARD_FACTOR:
                    break
        except requests.ClientDisconnect:
            raise MalformedRequest("the request ended within its body", hint="Send all of it.") from None
        if size > max_bytes:
            raise TooLarge(
                f"the body is larger than {max_bytes} bytes",
                hint=f"Send less, in several requests; or store large data elsewhere and share its location. The limit is {limit}.",
            )
        return b"".join(parts)
