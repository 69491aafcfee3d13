"""Artifacts as streams: ``PUT /v1/artifacts/{name}`` with the bytes as the body, ``GET`` with the bytes as the response, and ``HEAD``.

They consist of the same calls that a client makes for the parts (``operations.transfer``), so a sidecar forwards them
like any other call, and each call is authorised.

Guarantees: a transfer holds at most one part, and all of them together hold at most half of ``http_memory_bytes``: they
take turns part by part, and a client that sends faster waits. Each part must arrive within ``http_body_s``, and each
piece of a response must be taken within ``http_write_deadline_s``. Readers see nothing of an upload that ends early:
the client disconnected, sent less than it announced, or sent bytes that do not match its hash.

A browser never executes a response: it is an attachment, with exactly the stored type, in a sandbox.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar, cast
from urllib.parse import quote

import msgspec
from starlette import requests, responses

from coordinator.api.calls import Calls
from coordinator.api.connection import LimitedConnection
from coordinator.api.endpoint import endpoint_of
from coordinator.api.memory import Memory
from coordinator.api.parameters import at_least_of, expecting, from_query
from coordinator.api.principal import Principal
from coordinator.api.problems import (
    MalformedRequest,
    Overloaded,
    PreconditionFailed,
    RangeNotSatisfiable,
    TooLarge,
    UnsupportedMediaType,
    unmet,
)
from coordinator.api.request import Request
from coordinator.api.response import TRANSPORT, PartStream, Response
from coordinator.config import Config
from coordinator.errors import Conflict, InvalidArgument
from coordinator.model.artifact import Artifact
from coordinator.model.catalogue import LIMITS
from coordinator.model.operation import Operation
from coordinator.model.position import reported
from coordinator.operations import artifacts
from coordinator.operations.transfer import PART_BYTES, download, upload
from coordinator.telemetry import metrics

__all__ = ["PATH", "Transfers"]

PATH = "/v1/artifacts/{artifact}"
TRANSFERS = 64  # at the same time; each needs little memory besides its part
PART_COST = 4 * PART_BYTES  # received, assembled, and on its way to or from the database

R = TypeVar("R")

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))")
_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:?([A-Za-z0-9+/]{43}=):?\s*(?:,|$)", re.IGNORECASE)
_PLAIN = re.compile(r"[^A-Za-z0-9 ._+-]")


class Transfers:
    """The handlers of uploads and downloads; made once, by the application."""

    def __init__(self, calls: Calls, config: Config) -> None:
        self._calls = calls
        self._config = config
        self._memory = Memory(config.http_memory_bytes // 2, math.inf)
        self._running = 0
        metrics.ARTIFACT_TRANSFERS.set_function(lambda: self._running)
        self._put = msgspec.structs.replace(endpoint_of(artifacts.Begin), method="PUT", path=PATH, parameter="artifact")
        self._get = msgspec.structs.replace(endpoint_of(artifacts.Show), path=PATH)

    async def put(self, request: Request) -> Response:
        """Store the body as an artifact."""
        request.principal.check_role(artifacts.Begin)  # before anything is looked at
        expected = expecting(self._put, request)
        begin = msgspec.structs.replace(self._begin(request), **expected)
        done = self._enter()
        try:
            with reported() as positions:
                stored = await upload(
                    _OfPrincipal(self._calls, request.principal), begin, self._body(request), resume=False
                )
        except Conflict as error:
            raise (unmet(error) if expected else error) from None
        finally:
            done()
        headers = [_etag(stored), *((b"position", position.encode()) for position in positions[-1:])]
        return Response(200, msgspec.json.encode(stored), headers)

    async def get(self, request: Request) -> responses.Response:
        """Respond with the bytes of an artifact, or a range of them; to HEAD, with the same headers."""
        request.principal.check_role(artifacts.Part)
        show = from_query(self._get, request)
        await self._calls.include(request, at_least_of(request), in_log=False)
        runner = _OfPrincipal(self._calls, request.principal)
        artifact: Artifact = await runner.run(show)
        etag = _etag(artifact)
        tags = request.header("if-none-match")
        if tags is not None and (tags.strip() == "*" or etag[1].decode() in tags.replace("W/", "")):
            return Response(304, b"", [etag])
        match = request.header("if-match")
        if match is not None and match.strip() != "*" and etag[1].decode() not in match:
            raise PreconditionFailed("the artifact has another content", hint="Omit If-Match, or read it again.")
        head = request.method == "HEAD"
        first, end = (0, None) if head else _range(request, artifact, etag[1].decode())
        status, headers = (200, []) if end is None else (206, [_content_range(first, end, artifact.bytes)])
        end = artifact.bytes if end is None else end
        headers += [etag, (b"content-length", b"%d" % (end - first)), *_HARMLESS, *_described(artifact)]
        if head:
            response = responses.Response(status_code=status)
            response.raw_headers = headers
            return response
        parts = self._granted(download(runner, artifact, first, end))
        return PartStream(status, headers, parts, self._enter(), self._config.http_write_deadline_s)

    def _enter(self) -> Callable[[], None]:
        """Count a transfer; return what ends it.

        Raises: ``Overloaded``.
        """
        if self._running >= TRANSFERS:
            raise Overloaded(
                f"this daemon already has {TRANSFERS} transfers of artifacts", hint="Try again in a second."
            )
        self._running += 1

        def leave() -> None:
            self._running -= 1

        return leave

    def _begin(self, request: Request) -> artifacts.Begin:
        """Read the properties of the artifact from the path, the query and the headers.

        Raises: ``InvalidArgument``, ``MalformedRequest``, ``TooLarge``, ``UnsupportedMediaType``.
        """
        begin = from_query(self._put, request)
        assert isinstance(begin, artifacts.Begin)  # noqa: S101
        if (request.header("content-encoding") or "identity").lower() != "identity":
            raise UnsupportedMediaType("the body has a content encoding", hint="Send the bytes as they are.")
        if request.header("content-range"):
            raise InvalidArgument("the body is a range", hint="Send all of it, or its parts: see artifact_begin.")
        length = request.header("content-length")
        size = None if length is None else int(length)  # the server has checked it
        if size is not None and size > LIMITS["artifact_bytes"]:
            raise TooLarge(
                f"the body has {size} bytes; at most {LIMITS['artifact_bytes']} are allowed",
                hint="Compress or split it.",
            )
        sha256 = _digest(request)
        if None not in (sha256, begin.sha256) and sha256 != begin.sha256:
            raise InvalidArgument("the query and a header have different hashes", hint="Send one.")
        return msgspec.structs.replace(
            begin,
            media_type=request.header("content-type") or begin.media_type,
            bytes=begin.bytes if size is None else size,
            sha256=sha256 or begin.sha256,
        )

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body in parts, each when it is its turn.

        Raises: ``MalformedRequest`` if it ends early; ``TooLarge``.
        """
        connection = request.scope["extensions"][TRANSPORT].get_protocol()
        size = 0
        with self._memory.hold() as hold:
            await hold.reserve(PART_COST)
            try:
                async for piece in request.stream():
                    if not piece:
                        continue
                    size += len(piece)
                    if size > LIMITS["artifact_bytes"]:
                        raise TooLarge(
                            f"the body has more than {LIMITS['artifact_bytes']} bytes", hint="Compress or split it."
                        )
                    yield piece
                    if size // PART_BYTES > (size - len(piece)) // PART_BYTES:
                        hold.keep(0)
                        await hold.reserve(PART_COST)
                        if isinstance(connection, LimitedConnection):
                            connection.extend()
            except requests.ClientDisconnect:
                raise MalformedRequest("the request ended within its body", hint="Send all of it.") from None

    async def _granted(self, parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """Yield parts, each when it is its turn."""
        while True:
            with self._memory.hold() as hold:
                await hold.reserve(PART_COST)
                part = await anext(parts, None)
                if part is None:
                    return
                yield part


class _OfPrincipal:
    """Runs operations with the rights of the sender of the request."""

    def __init__(self, calls: Calls, principal: Principal) -> None:
        self._calls = calls
        self._principal = principal

    async def run(self, operation: Operation[R]) -> R:
        await self._principal.confirm()  # the token may have been revoked since the last part
        return cast("R", await self._calls.run(await self._principal.permit(operation)))


_HARMLESS = (
    (b"cache-control", b"private, no-cache"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"accept-ranges", b"bytes"),
)


def _described(artifact: Artifact) -> list[tuple[bytes, bytes]]:
    """Return the headers with the type of the bytes and the name under which to save them."""
    name = artifact.artifact.rpartition("/")[2] or "artifact"
    disposition = f"attachment; filename=\"{_PLAIN.sub('_', name)}\"; filename*=UTF-8''{quote(name, safe='')}"
    digest = base64.b64encode(bytes.fromhex(artifact.sha256))
    return [
        (b"content-type", artifact.media_type.encode()),
        (b"content-disposition", disposition.encode()),
        (b"repr-digest", b"sha-256=:%b:" % digest),
    ]


def _etag(artifact: Artifact) -> tuple[bytes, bytes]:
    return (b"etag", b'"%b"' % artifact.sha256.encode())


def _content_range(first: int, end: int, size: int) -> tuple[bytes, bytes]:
    return (b"content-range", b"bytes %d-%d/%d" % (first, end - 1, size))


def _range(request: Request, artifact: Artifact, etag: str) -> tuple[int, int | None]:
    """Read which bytes a request wants; the end is None for all of them, also where it wants several ranges.

    Raises: ``RangeNotSatisfiable``.
    """
    given = _RANGE.fullmatch((request.header("range") or "").replace(" ", ""))
    if given is None or request.header("if-range") not in (None, etag):
        return 0, None
    size = artifact.bytes
    first, last, suffix = (None if text is None else int(text) for text in given.groups())
    if first is None:
        first, last = max(0, size - (suffix or 0)), size - 1
    end = min(size, (size if last is None else last + 1))
    if last is not None and last < first and suffix is None:
        return 0, None  # malformed, so ignored (RFC 9110)
    if first >= end:
        raise RangeNotSatisfiable(f"the artifact has {size} bytes", size)
    return first, end


def _digest(request: Request) -> str | None:
    """Read the SHA-256 of the body, in hexadecimal, from a header; other algorithms are ignored.

    Raises: ``InvalidArgument``.
    """
    for name in ("repr-digest", "content-digest", "digest"):
        given = request.header(name)
        if given is None or "sha-256" not in given.lower():
            continue
        found = _DIGEST.search(given)
        try:
            return base64.b64decode(found[1], validate=True).hex() if found else _malformed(name)
        except binascii.Error:
            _malformed(name)
    return None


def _malformed(name: str) -> str:
    raise InvalidArgument(
        f"the header {name} holds no SHA-256", hint="Write Repr-Digest: sha-256=:BASE64:, or sha256=HEX in the query."
    )
