"""Events over HTTP: ``GET /v1/events`` for catching up and long-polling, ``GET /v1/events/stream`` for the stream.

Both accept the same filter and the same cursor, so a client can switch between them. ``after`` is a cursor, ``now``, or
``start`` for everything that is retained.
"""

from __future__ import annotations

import re
from typing import Any

import anyio
import msgspec

from coordinator.api.calls import Calls
from coordinator.api.filter import Filter
from coordinator.api.gateway import Gateway
from coordinator.api.memory import PAGE_COST
from coordinator.api.parameters import AT_LEAST, at_least_of, duration_of
from coordinator.api.request import Request
from coordinator.api.response import Response
from coordinator.api.shape import shape_hint
from coordinator.api.stream import StreamResponse
from coordinator.errors import InvalidArgument
from coordinator.model.event import RESET, Event
from coordinator.operations.events import POLL_S, Head, Since
from coordinator.operations.executor import Source
from coordinator.operations.log_reader import LogReader

__all__ = ["EventPage", "EventQuery", "StreamQuery", "Subscriptions"]

_CURSOR = re.compile(r"[0-9a-z]{1,16}\.[0-9]{1,18}|now|start")
_encode = msgspec.json.Encoder().encode


class StreamQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events. ``project``, ``topic``, ``key`` (a pattern such as ``task/7/*``) and ``actor`` can be repeated.

    ``exclude_self`` omits the events that this actor caused. ``at_least`` is a position: the log includes it before the first response.
    """

    after: str | None = None
    project: list[str] = msgspec.field(default_factory=list)
    topic: list[str] = msgspec.field(default_factory=list)
    key: list[str] = msgspec.field(default_factory=list)
    actor: list[str] = msgspec.field(default_factory=list)
    exclude_self: str | None = None
    at_least: list[str] = msgspec.field(default_factory=list)


class EventQuery(StreamQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events, how many, and how long to ``wait`` for the first."""

    limit: int = 1000
    wait: str = "0"


class EventPage(msgspec.Struct, frozen=True):
    """Events in order; continue from ``cursor``. An event of type ``reset`` means that events are lost: take a new snapshot."""

    items: list[Event]
    cursor: str
    event_cursor: str


class Subscriptions:
    """Serves events. The application makes one."""

    def __init__(self, calls: Calls, gateway: Gateway, database: Source) -> None:
        self._calls = calls
        self._gateway = gateway
        self._database = database
        self._config = gateway.config

    async def stream(self, request: Request) -> StreamResponse:
        """Respond with a stream. ``Last-Event-ID`` overrides ``after``: when a browser reconnects, it is newer.

        In that case, the stream continues, and has already waited for ``at_least``.
        """
        query = _query(request, StreamQuery)
        wanted = self._filter(request, query)
        resumed = request.header("last-event-id")
        after = resumed or query.after or "now"
        if not _CURSOR.fullmatch(after):
            raise InvalidArgument(
                f'invalid cursor "{after[:100]}"',
                hint="Give the cursor of an event, now, or start.",
                code="ZC103",
            )
        at_least = None if resumed else at_least_of(request)
        await self._calls.include(request, at_least, in_log=True)
        if after == "now":
            after = await (self._gateway.cursor(self._calls) if at_least is None else self._calls.run(Head()))
        return StreamResponse(
            self._gateway,
            self._database,
            request.principal,
            wanted,
            after=None if after == "start" else after,
            exclude=query.exclude_self,
        )

    async def read(self, request: Request) -> Response:
        """Respond with the events after a cursor, or with the first that arrive during the wait."""
        query = _query(request, EventQuery)
        wanted = self._filter(request, query)
        wait_s = duration_of(query.wait, self._config.http_wait_s)
        await self._calls.include(request, at_least_of(request), in_log=True)
        if not wait_s:
            return await self._page(query, wanted, None, 0, request)
        async with self._gateway.connection():
            with self._gateway.watch(wanted) as wake, request.principal.watching(wake.set):
                return await self._page(query, wanted, wake, anyio.current_time() + wait_s, request)

    async def _page(self, query: EventQuery, filter: Filter, wake: Any, deadline: float, request: Request) -> Response:
        after = None if query.after == "start" else query.after
        reader = LogReader(
            after,
            project=filter.project,
            topics=filter.topics,
            keys=filter.keys,
            actors=filter.actors,
            limit=query.limit,
        )
        while True:
            await request.hold.reserve(PAGE_COST)
            items = [event for event in await reader.read(self._calls) if _wanted(event, query, filter)]
            assert reader.after is not None, "a first read always moves the position"  # noqa: S101
            if wake is not None:
                await request.principal.confirm()  # the last event may be the revocation of its token
            left_s = deadline - anyio.current_time()
            if items or (reader.at_end and (wake is None or left_s <= 0 or self._gateway.closing)):
                return Response(200, _encode(EventPage(items, reader.after, reader.after)))
            request.hold.keep(0)
            if reader.at_end:
                await wake.wait(min(left_s, POLL_S))

    def _filter(self, request: Request, query: StreamQuery) -> Filter:
        request.principal.check_role(Since)
        request.principal.check_projects(query.project or None)
        return Filter(query.project, query.topic, self._config.http_topics, keys=query.key, actors=query.actor)


def _wanted(event: Event, query: EventQuery, filter: Filter) -> bool:
    return event.type == RESET or (event.actor != query.exclude_self and filter.takes(event))


def _query(request: Request, type: type[Any]) -> Any:
    values: dict[str, Any] = {}
    for name, text in request.query():
        if name in ("project", "topic", "key", "actor", AT_LEAST):
            values.setdefault(name, []).append(text)
        elif name in values:
            raise InvalidArgument(f'the parameter "{name[:100]}" is repeated', hint="Send it once.")
        else:
            values[name] = text
    try:
        return msgspec.convert(values, type, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid query: {error}", hint=shape_hint(type, error)) from None
