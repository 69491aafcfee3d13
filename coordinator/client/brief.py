"""The coordinator for programs that make a few calls and end: cheap to import, with one connection and without a task.

Guarantees: those of ``client.http`` for single calls: an operation goes where ``model.route`` says, a problem comes back as the error
that it was made of, and every call ends in time. HTTP is spoken by hand: aiohttp alone takes longer to import than such a
program runs, and ``http.client`` half as long. Its calls never suspend, so they need no event loop: see ``finish``.

On failure: a call without a response is ``DatabaseUnavailable``. A read is repeated once if the kept connection turned out to be dead.

What it deliberately does not do: run calls side by side, or listen.
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from coordinator.client.problem import error_of
from coordinator.client.wire import Message, message_of, result_of
from coordinator.config import Config
from coordinator.errors import DatabaseUnavailable
from coordinator.model.address import is_gateway
from coordinator.model.operation import Operation
from coordinator.model.position import report

if TYPE_CHECKING:
    from coordinator.operations.executor import Runner

__all__ = ["finish", "opened", "pause"]

OK = 200
MAX_BODY = 512 << 20  # as in http_pool
MAX_HEAD = 64 << 10
PIECE = 1 << 16

R = TypeVar("R")


@asynccontextmanager
async def opened(url: str, config: Config) -> AsyncIterator[Runner]:
    """Open the database, daemon or sidecar at an address, and close it when the context ends.

    Raises: ``DatabaseUnavailable``, ``ConfigurationError``.
    """
    if is_gateway(url):
        gateway = _ByHand(url, config)
        try:
            yield gateway
        finally:
            gateway.close()
        return
    from coordinator.db.single import Single  # noqa: PLC0415 - the driver takes 0.1 s to import

    async with Single.open(url, config) as single:
        yield single


def finish(url: str, work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end. Where the address is that of a gateway, it may wait for its calls and ``pause`` alone."""
    if is_gateway(url):
        try:
            work.send(None)
        except StopIteration as end:
            return cast("R", end.value)
        work.close()
        raise RuntimeError("a call over HTTP waited for an event loop")
    import asyncio  # noqa: PLC0415 - slow to import

    return asyncio.run(work)


async def pause(url: str, seconds: float) -> None:
    """Wait between two calls at this address."""
    if is_gateway(url):
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop
        return
    import asyncio  # noqa: PLC0415 - slow to import

    await asyncio.sleep(seconds)


class _ByHand:
    """Runs operations over HTTP, one after the other; a ``Runner``."""

    def __init__(self, url: str, config: Config) -> None:
        parts = urlsplit(url)
        self._url = url
        self._place = (parts.scheme, parts.hostname or "localhost", parts.port, parts.path)
        self._prefix = "" if parts.scheme == "unix" else parts.path.rstrip("/")
        token = "" if config.token is None else f"authorization: Bearer {config.token}\r\n"
        host = parts.netloc or "localhost"
        self._head = f"host: {host}\r\naccept: application/json\r\naccept-encoding: identity\r\n{token}"
        self._timeout_s = config.call_timeout_s
        self._wire: _Wire | None = None

    async def run(self, operation: Operation[R]) -> R:
        """Run one operation.

        Raises: what the operation raises; ``DatabaseUnavailable`` if no response came.
        """
        return cast("R", result_of(operation, self._send(message_of(operation), repeatable=operation.reads)))

    def close(self) -> None:
        """Close the connection."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _send(self, message: Message, *, repeatable: bool) -> bytes:
        ends_at = time.monotonic() + self._timeout_s
        kept = self._wire is not None
        try:
            try:
                response = self._attempt(message, ends_at)
            except ConnectionError:
                if not (kept and repeatable):
                    raise
                self.close()
                response = self._attempt(message, ends_at)
        except OSError as error:
            sent = self._wire is not None
            self.close()
            raise self._unavailable(error, sent=sent) from error
        if response.closes:
            self.close()
        if response.status != OK:
            raise error_of(response.status, response.body)
        report(response.position)
        return response.body

    def _attempt(self, message: Message, ends_at: float) -> _Answered:
        content = message.content or b""
        size = (
            "" if message.content is None else f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        )
        head = f"{message.method} {self._prefix}{message.path} HTTP/1.1\r\n{self._head}{size}\r\n"
        if self._wire is None:
            self._wire = _Wire(*self._place, ends_at)
        self._wire.ends_at = ends_at
        self._wire.send(head.encode() + content)
        return self._wire.response()

    def _unavailable(self, error: OSError, *, sent: bool) -> DatabaseUnavailable:
        reason = (
            f"no complete response within {self._timeout_s:.1f} seconds"
            if isinstance(error, TimeoutError)
            else error.strerror or str(error)
        )
        hint = (
            "A write may or may not have succeeded." if sent else "Is the server running, and is the address correct?"
        )
        return DatabaseUnavailable(f"no response from {self._url}: {reason}", hint=hint)


class _Answered(NamedTuple):
    status: int
    position: str | None
    body: bytes
    closes: bool


class _Wire:
    """One connection, also to a Unix socket or over TLS, on which every step ends at ``ends_at``.

    What is not HTTP is a ``ConnectionError``, as if the connection had been lost.
    """

    def __init__(self, scheme: str, host: str, port: int | None, path: str, ends_at: float) -> None:
        self.ends_at = ends_at
        self._read = b""
        if scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(self._left_s())
            self._socket.connect(path)
            return
        try:
            self._socket = socket.create_connection((host, port or (443 if scheme == "https" else 80)), self._left_s())
        except UnicodeError as error:
            raise OSError(f"invalid host name: {error}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if scheme == "https":
            import ssl  # noqa: PLC0415 - slow to import

            self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)

    def send(self, data: bytes) -> None:
        self._socket.settimeout(self._left_s())
        self._socket.sendall(data)

    def response(self) -> _Answered:
        """Read a whole response."""
        status = 100
        while status < OK:  # interim ones
            lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            match lines[0].split(" ", 2):
                case ["HTTP/1.1" | "HTTP/1.0", code, *_] if code.isdigit():
                    status = int(code)
                case _:
                    raise ConnectionError("the response is not HTTP")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = headers.get("content-length")
        if "chunked" in headers.get("transfer-encoding", ""):
            body = self._chunks()
        elif length is None:
            body = self._rest()
        elif length.isdigit():
            body = self._exactly(int(length))
        else:
            raise ConnectionError("the response has no valid length")
        closes = length is None or lines[0].startswith("HTTP/1.0") or headers.get("connection", "").lower() == "close"
        return _Answered(status, headers.get("position"), body, closes)

    def close(self) -> None:
        self._socket.close()

    def _left_s(self) -> float:
        return max(self.ends_at - time.monotonic(), 0.001)

    def _more(self) -> bool:
        self._socket.settimeout(self._left_s())
        piece = self._socket.recv(PIECE)
        self._read += piece
        return bool(piece)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._read:
            if len(self._read) > MAX_HEAD or not self._more():
                raise ConnectionError("the connection was lost before the response")
        found, _, self._read = self._read.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        if size > MAX_BODY:
            raise ConnectionError(f"the response has more than {MAX_BODY} bytes")
        pieces, missing = [self._read[:size]], size - len(self._read)
        self._read = self._read[size:]
        while missing > 0:
            self._socket.settimeout(self._left_s())
            piece = self._socket.recv(min(missing, PIECE))
            if not piece:
                raise ConnectionError("the connection was lost in the middle of the response")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _chunks(self) -> bytes:
        pieces: list[bytes] = []
        total = 0
        while True:
            size = self._until(b"\r\n").partition(b";")[0].strip()
            try:
                count = int(size, 16)
            except ValueError:
                raise ConnectionError("the response is not HTTP") from None
            if count <= 0:
                while self._until(b"\r\n"):  # trailers
                    pass
                return b"".join(pieces)
            total += count
            if total > MAX_BODY:
                raise ConnectionError(f"the response has more than {MAX_BODY} bytes")
            pieces.append(self._exactly(count))
            self._exactly(2)

    def _rest(self) -> bytes:
        while self._more():
            if len(self._read) > MAX_BODY:
                raise ConnectionError(f"the response has more than {MAX_BODY} bytes")
        found, self._read = self._read, b""
        return found
