"""A request and its answer, as the handlers of ``/v1`` see them."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from litestar.types import Receive, Scope, Send

from coordinator.api.endpoint import decode_hook
from coordinator.api.principal import Principal
from coordinator.api.problems import MalformedRequest, TooLarge, UnsupportedMediaType
from coordinator.errors import InvalidArgument

__all__ = ["Answer", "Request"]

QUERY_FIELDS = 2000
HEADER_MOST = 1000
DISCARD_FACTOR = 16


class Answer(NamedTuple):
    """What goes back."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]]
    media_type: bytes = b"application/json"


class Request:
    """One request. ``argument`` is what the path's parameter took."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, argument: str | None, caller: Principal) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.argument = argument
        self.caller = caller

    def header(self, name: bytes) -> str | None:
        """Give a header's value.

        Raises: ``MalformedRequest``.
        """
        for key, value in self.scope["headers"]:
            if key == name:
                try:
                    text = value.decode("ascii")
                except UnicodeDecodeError:
                    text = ""
                if not text or len(text) > HEADER_MOST:
                    raise MalformedRequest(
                        f"the header {name.decode()} is empty, too long or not ASCII", hint="Correct it."
                    )
                return text
        return None

    def query(self) -> list[tuple[str, str]]:
        """Take the query apart.

        Raises: ``MalformedRequest``.
        """
        raw: bytes = self.scope["query_string"]
        if not raw:
            return []
        try:
            return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS)
        except ValueError as error:
            raise MalformedRequest(
                f"the query cannot be read: {error}",
                hint="Write name=value&name=value, in UTF-8, with %XX where needed.",
            ) from None

    async def body(self, type: type[Any], most_bytes: int) -> Any:
        """Read the JSON body.

        Raises: ``UnsupportedMediaType``, ``TooLarge``, ``MalformedRequest``; ``InvalidArgument`` where it does not fit.
        """
        media_type = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMediaType(
                f'the body is said to be "{media_type}"' if media_type else "the body is not said to be anything",
                hint="Send JSON, with the header Content-Type: application/json",
            )
        data = await self._read(most_bytes)
        try:
            return msgspec.json.decode(data, type=type, dec_hook=decode_hook)
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"the body does not fit: {error}", hint="See /schema for what is expected.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedRequest(f"the body is no JSON: {error}", hint="Send one JSON object, in UTF-8.") from None

    async def _read(self, most_bytes: int) -> bytes:
        """Read the body; what is over the limit is thrown away for a while, so that the client sees the answer."""
        parts = []
        size = 0
        more = True
        while more and size <= most_bytes * DISCARD_FACTOR:
            message = await self.receive()
            if message["type"] != "http.request":
                raise MalformedRequest("the request ended within its body", hint="Send all of it.")
            size += len(message["body"])
            more = message.get("more_body", False)
            if size <= most_bytes:
                parts.append(message["body"])
        if size > most_bytes:
            raise TooLarge(
                f"the body is larger than {most_bytes} bytes",
                hint="Keep large things elsewhere and share where they are.",
            )
        return b"".join(parts)
