"""One subscriber's event stream (Server-Sent Events).

Frames: first ``ready``, with the cursor where the stream starts; then events, with the cursor as ``id:``, the type as
``event:`` and the event's JSON as ``data:``; ``reset`` where events are lost; finally ``bye``, with the reason. An
``id:`` without data is a bookmark: nothing up to it matched. If there is no frame for the heartbeat interval, a comment
is sent, which says how long ago the database responded.

A stream first catches up: it writes each page when the socket has room. Then it joins the gateway's group, which writes
to the socket directly. When the socket buffers more than ``http_buffer_bytes``, the stream leaves the group and catches
up again. A socket that takes nothing within the write deadline gets ``bye`` and is closed. Both ways write the same
events, so a live event never overtakes the backlog.

The stream writes to the server's transport, which ``api/connection.py`` puts into the scope: a batch costs a stream one
write, no task switch, and no copy of its bytes.
"""

from __future__ import annotations

import time
from asyncio import Transport

import anyio
import msgspec
import structlog
from starlette import responses
from starlette.types import Receive, Scope, Send

from coordinator.api.filter import Filter
from coordinator.api.gateway import Gateway
from coordinator.api.memory import PAGE_COST, Allotment
from coordinator.api.principal import Principal
from coordinator.api.problems import Overloaded
from coordinator.api.response import PIECE_BYTES, TRANSPORT
from coordinator.api.ring import Frame, bookmark, chunk, frame_of, runs
from coordinator.errors import DatabaseUnavailable, ServerBehind
from coordinator.model.event import BOOKMARK, RESET, parsed_cursor
from coordinator.operations.executor import Runner
from coordinator.operations.log_reader import LogReader
from coordinator.telemetry import metrics

__all__ = ["StreamResponse"]

RECONNECT_MS = 1000
RETRY_S = 1.0
BEHIND_S = (
    10.0  # how long a server that has not reached the cursor may take to reach it, or to be replaced by another one
)
LEAVE_S = 2.0  # time for a closed stream to take what was written

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"connection", b"close"),  # the end of a stream closes its connection: send no other request on it
    (b"x-accel-buffering", b"no"),  # proxies must not buffer the stream
    (b"transfer-encoding", b"chunked"),  # data that goes directly to the transport is chunked here
]
_PASSES = frozenset((BOOKMARK, RESET))

log = structlog.get_logger()


class _Behind(Exception):
    """No server has reached the cursor."""


class _TooSlow(Exception):
    """The socket took nothing within the write deadline."""


class StreamResponse(responses.Response):
    """One subscriber; a ``Reader`` of the gateway."""

    def __init__(
        self,
        gateway: Gateway,
        executor: Runner,
        principal: Principal,
        filter: Filter,
        *,
        after: str | None,
        exclude: str | None,
    ) -> None:
        self._principal = principal
        self.filter = filter
        self.exclude = exclude
        self.seq = 0
        self.epoch: str | None = None
        self._gateway = gateway
        self._executor = executor
        self._config = gateway.config
        self._written_at = 0.0
        self._marked = 0  # the last id that was written
        self._serving: anyio.CancelScope | None = None
        self._revoked = False
        self._behind_since: float | None = None
        self._transport: Transport
        self._send: Send
        if after is not None:  # otherwise, everything that is retained
            self.epoch, self.seq = parsed_cursor(after)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream until one side ends it.

        Raises: ``Overloaded``, ``DatabaseUnavailable``.
        """
        self._transport = scope["extensions"][TRANSPORT]
        self._send = send
        async with self._gateway.connection(self):
            await self._stream(receive, send)

    async def _stream(self, receive: Receive, send: Send) -> None:
        with self._principal.watching(self.revoke):
            await receive()  # the request, which has no body
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            try:
                await self._write(self._ready())
                while await self._serve(receive):
                    pass
            except _TooSlow:
                await self._leave("slow: the client read nothing within the write deadline", receive)
            except _Behind:
                await self._leave(
                    "behind: the server has not reached the cursor; keep it and reconnect later, or begin without one",
                    receive,
                )
            else:
                if self._gateway.closing:
                    await self._leave("shutdown: continue from your cursor at another daemon, or here later", receive)
                elif self._revoked:
                    await self._leave("revoked: the token that opened the stream has ended", receive)

    def push(self, data: bytes, first_seq: int) -> None:
        """Write a chunk, or continue at the stream's own pace if the socket is full."""
        transport = self._transport
        allowed = self._config.http_buffer_bytes
        # Beyond the limit, which allows for one large event.
        if transport.get_write_buffer_size() > allowed or len(data) > 2 * allowed:
            self.epoch, self.seq = self._gateway.epoch, first_seq - 1
            self._gateway.leave(self)
            self.interrupt()
        elif not transport.is_closing():
            transport.write(data)
            self._written_at = 0.0  # set by the next beat, which is cheaper than reading the clock for each write

    def beat(self, now: float) -> None:
        """Write a bookmark or a comment if nothing was written for the heartbeat interval."""
        if not self._written_at:
            self._written_at = now
        if now - self._written_at < self._config.http_heartbeat_s or self._transport.is_closing():
            return
        self._written_at = now
        gateway = self._gateway
        epoch, head = (gateway.epoch, gateway.ring.head) if gateway.ring.head >= self.seq else (self.epoch, self.seq)
        data = self._comment()
        if head > self._marked:
            self._marked = head
            data += bookmark(f"{epoch}.{head}")
        self._transport.write(chunk(data))

    def revoke(self) -> None:
        """End the stream: the token that opened it has ended."""
        self._revoked = True
        self._gateway.leave(self)
        self.interrupt()

    def interrupt(self) -> None:
        """Stop waiting: there is something to do."""
        if self._serving is not None:
            self._serving.cancel()

    async def _serve(self, receive: Receive) -> bool:
        """Catch up, then stay in the group until interrupted; return false when the stream has ended."""
        with anyio.CancelScope() as self._serving:
            await self._catch_up()
            if not self._over:
                if not self._transport.is_closing():
                    self._gateway.join(self)
                await _disconnected(receive)
            return False
        return not self._over

    @property
    def _over(self) -> bool:
        return self._gateway.closing or self._revoked

    async def _catch_up(self) -> None:
        while not self._over and not self._transport.is_closing():
            try:
                with self._gateway.memory.hold() as hold:
                    more = await self._catch_up_some(hold)
                self._behind_since = None
                if not more:
                    return
            except (DatabaseUnavailable, Overloaded) as error:
                if isinstance(error, ServerBehind):
                    self._behind_since = self._behind_since or time.monotonic()
                    if time.monotonic() - self._behind_since >= BEHIND_S:
                        raise _Behind from error
                log.warning("stream.read_failed", error=error.message)
                await self._write(self._comment())
                await anyio.sleep(RETRY_S)

    async def _catch_up_some(self, hold: Allotment) -> bool:
        """Write what comes next; return false if that is nothing.

        Raises: ``DatabaseUnavailable``, ``Overloaded``.
        """
        gateway = self._gateway
        epoch = gateway.epoch
        if self.epoch == epoch and gateway.ring.covers(self.seq):
            frames = gateway.ring.after(self.seq, self._config.http_page, self._config.http_buffer_bytes)
            if not frames:
                return False
            if len(frames[0].data) > self._config.http_buffer_bytes:
                await hold.reserve(len(frames[0].data))
            self.seq = frames[-1].seq
            frames = [frame for frame in frames if self.filter.takes(frame)]
        else:
            await hold.reserve(PAGE_COST)
            frames = await self._read_log()
            if not frames and gateway.epoch == epoch and not (self.epoch == epoch and self.seq < gateway.ring.head):
                return False  # otherwise, the gateway has meanwhile published what the page did not include, or a reset
            hold.keep(sum(len(frame.data) for frame in frames))
        wanted = (frame for frame in frames if frame.actor != self.exclude or frame.type in _PASSES)
        for run in runs(wanted, self._config.http_buffer_bytes):
            await self._write(b"".join([frame.data for frame in run]))
        return True

    async def _read_log(self) -> list[Frame]:
        """Read one page of the log.

        Raises: ``DatabaseUnavailable``.
        """
        reader = LogReader(
            None if self.epoch is None else f"{self.epoch}.{self.seq}",
            project=self.filter.project,
            topics=self.filter.topics,
            keys=self.filter.keys,
            actors=self.filter.actors,
            limit=self._config.http_page,
        )
        async with self._gateway.log_turns:
            events = await reader.read(self._executor)
        if reader.at_end or reader.after is None:
            return []
        self.epoch, self.seq = parsed_cursor(reader.after)
        self._gateway.seen(self.epoch, self.seq)
        frames = [frame_of(event) for event in events if event.type == RESET or self.filter.takes(event)]
        if not frames or frames[-1].seq != self.seq:
            frames.append(Frame(self.seq, BOOKMARK, None, None, "", bookmark(reader.after)))
        return frames

    async def _write(self, data: bytes) -> None:
        """Write as the socket has room.

        Raises: ``_TooSlow``.
        """
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            with anyio.move_on_after(self._config.http_write_deadline_s) as scope:
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            if scope.cancelled_caught:
                raise _TooSlow
        self._marked = self.seq
        self._written_at = time.monotonic()

    def _comment(self) -> bytes:
        return b": the database was heard %.1f s ago\n\n" % self._gateway.database_age_s

    def _ready(self) -> bytes:
        cursor = None if self.epoch is None else f"{self.epoch}.{self.seq}"
        data = msgspec.json.encode({"cursor": cursor})
        mark = b"" if cursor is None else b"id: %b\n" % cursor.encode()
        return b"retry: %d\n%bevent: ready\ndata: %b\n\n" % (RECONNECT_MS, mark, data)

    async def _leave(self, reason: str, receive: Receive) -> None:
        """Write the reason and end the response; abort a socket that does not take it."""
        metrics.STREAM_CLOSED.labels(reason.partition(":")[0]).inc()
        self._gateway.leave(self)
        data = b"event: bye\ndata: %b\n\n" % msgspec.json.encode({"reason": reason})
        with anyio.move_on_after(LEAVE_S):
            if self._gateway.closing:
                await self._send({"type": "http.response.body", "body": data, "more_body": False})
                return
            self._transport.write(chunk(data) + chunk(b""))
            self._transport.close()  # when all is written
            await _disconnected(receive)
            return
        self._transport.abort()
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
