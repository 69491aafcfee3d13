"""A growing list as Server-Sent Events: its rows, and then each new row.

A GET of such a list that accepts ``text/event-stream`` gets a frame for each row, with the row as ``data:`` and its
cursor as ``id:``. ``Last-Event-ID`` resumes after a row, as a browser does automatically, and ``after`` starts after
one. If nothing can follow a row, its id is ``end``. A client that resumes after it gets 204, so that browsers do not
reconnect. The last frame is ``bye``, with the reason.

Errors before the first frame are problems, as usual. If the database becomes unavailable later, the stream sends
comments, and continues afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import msgspec

from coordinator.api.filter import Filter
from coordinator.api.gateway import Gateway
from coordinator.api.memory import PAGE_COST
from coordinator.api.problems import Overloaded
from coordinator.api.request import Request
from coordinator.errors import CoordinatorError, DatabaseUnavailable, Unauthenticated
from coordinator.model.operation import Operation
from coordinator.model.page import after_last, cursor_of, page_of
from coordinator.operations.executor import Runner

__all__ = ["END", "HEADERS", "following", "wants_events"]

END = "end"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # proxies must not buffer the stream
]
RETRY_S = 1.0

_encode = msgspec.json.Encoder().encode


def wants_events(request: Request) -> bool:
    """Return whether a request explicitly accepts Server-Sent Events."""
    return "text/event-stream" in request.headers.get("accept", "")


async def following(
    runner: Runner, gateway: Gateway, operation: Operation[list[Any]], request: Request
) -> AsyncGenerator[bytes]:
    """Yield the frames of a list with ``grows``, until nothing can follow, the token ends, or the daemon shuts down.

    Raises: before the first frame, what the operation raises, and ``Overloaded``.
    """
    about = operation.about()
    wanted = Filter((about,) if isinstance(about, str) else (), operation.woken_by)
    begun = False
    async with gateway.connection():
        with gateway.watch(wanted, operation.concerned_by) as wake, request.principal.watching(wake.set):
            while not gateway.closing:
                try:
                    with gateway.memory.hold() as hold:
                        await hold.reserve(PAGE_COST)
                        rows = await _rows(runner, operation)
                        frames = b"".join([_frame(operation, row) for row in rows])
                        if not begun:
                            frames = b"retry: 1000\n\n" + frames
                        begun = True
                        if frames:
                            hold.keep(len(frames))
                            yield frames
                    if operation.over(rows):
                        yield _bye("ended: nothing follows")
                        return
                    if rows:
                        operation = msgspec.structs.replace(operation, after=after_last(operation, rows))
                        if page_of(operation, rows).cursor is not None:
                            continue
                    if not await wake.wait(gateway.config.http_heartbeat_s):
                        yield b": nothing new\n\n"
                    await request.principal.confirm()
                except (DatabaseUnavailable, Overloaded) as error:
                    if not begun:
                        raise
                    yield b": %b\n\n" % error.name.encode()
                    await anyio.sleep(RETRY_S)
                except Unauthenticated:
                    yield _bye("revoked: the token that opened the stream has ended")
                    return
            yield _bye("shutdown: continue from your cursor at another daemon, or here later")


async def _rows(runner: Runner, operation: Operation[list[Any]]) -> list[Any]:
    try:
        return await runner.run(operation)
    except CoordinatorError as error:
        if not operation.awaits(error):
            raise
        return []


def _frame(operation: Operation[list[Any]], row: Any) -> bytes:
    place = END if operation.over([row]) else cursor_of(type(operation), after_last(operation, [row]))
    return b"id: %b\ndata: %b\n\n" % (place.encode(), _encode(row))


def _bye(reason: str) -> bytes:
    return b"event: bye\ndata: %b\n\n" % _encode({"reason": reason})
