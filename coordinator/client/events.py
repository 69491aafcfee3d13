"""Events: emitted by the caller, followed without a gap.

A stream reads the log by cursor. A notification only tells it to look sooner, so whatever happens to connections, it
misses nothing, repeats nothing and stays in order; after an interruption it goes on from where it was, for as long as it
takes. Where events are gone (pruned, or the database was restored) it says so by an event of type ``reset``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import anyio
import structlog
from anyio.abc import TaskGroup
from msgspec.structs import replace

from coordinator.backoff import Backoff
from coordinator.client.caller import Caller
from coordinator.errors import DatabaseUnavailable
from coordinator.model.event import BOOKMARK, Event
from coordinator.model.operation import Json
from coordinator.operations import events

__all__ = ["EventStream", "Events"]

PAGE = 500  # events

log = structlog.get_logger()


class Events:
    """The events of the client's project; ``everywhere`` of all projects."""

    def __init__(self, caller: Caller, tasks: TaskGroup) -> None:
        self._caller = caller
        self._tasks = tasks
        self._hint = anyio.Event()
        self._listening: set[str | None] = set()

    async def emit(self, type: str, *, key: str | None = None, data: Mapping[str, Json] | None = None) -> None:
        """Emit an event of your own, of a type ``custom.…``."""
        await self._caller.run(
            events.Emit(
                project=self._caller.project,
                type=type,
                key=key,
                data=dict(data or {}),
                actor=await self._caller.actor(),
            )
        )

    async def head(self) -> str:
        """Read the cursor after the newest event; read it before a snapshot, to stream on from it without a gap."""
        return await self._caller.run(events.Head())

    async def since(
        self, after: str | None = None, *, topics: Sequence[str] = (), everywhere: bool = False, limit: int = 1000
    ) -> list[Event]:
        """Read one page of the log after a cursor (none: all that is retained) and return at once."""
        return await self._caller.run(
            events.Since(
                after=after,
                project=None if everywhere else self._caller.project,
                topics=list(topics) or None,
                limit=limit,
            )
        )

    def stream(self, *, topics: Sequence[str] = (), after: str | None = "now", everywhere: bool = False) -> EventStream:
        """Follow events after a cursor: ``now`` (what comes after the first step), or none for all that is retained.

        Raises, at its first step: ``InvalidArgument`` for what is no cursor or topic.
        """
        self.listen(everywhere=everywhere)
        project = None if everywhere else self._caller.project
        return EventStream(
            self,
            self._caller,
            events.Since(after=after, project=project, topics=list(topics) or None, limit=PAGE, bookmarks=True),
        )

    @property
    def hint(self) -> anyio.Event:
        """What is set when the log may have grown. Taken before a look at the log, it misses nothing after the look."""
        return self._hint

    def listen(self, *, everywhere: bool = False) -> anyio.Event:
        """Listen from now on, as every stream does, and give the ``hint``."""
        project = None if everywhere else self._caller.project
        if not self._listening & {project, None}:
            self._listening.add(project)
            self._tasks.start_soon(self._listen, project)
        return self._hint

    async def _listen(self, project: str | None) -> None:
        """Keep one listening connection for all streams of the client, and hand every hint to all of them."""
        backoff = Backoff(2.0)
        while True:
            try:
                async with self._caller.executor.wake(project=project) as wake:
                    while True:
                        await wake.wait(events.POLL_S)
                        self._wake_streams()
            except DatabaseUnavailable as error:
                log.warning("stream.unheard", error=str(error), retry_s=backoff.next_s)
            self._wake_streams()
            await backoff.wait()

    def _wake_streams(self) -> None:
        hint, self._hint = self._hint, anyio.Event()
        hint.set()


class EventStream:
    """An endless iterator of events. One task reads it; it needs no closing, and can be left and gone on with.

    ``cursor`` stands after the event it gave last: keep it, and ``stream(after=cursor)`` goes on there in another process.
    """

    def __init__(self, source: Events, caller: Caller, since: events.Since) -> None:
        self._source = source
        self._caller = caller
        self._since = since
        self._page: deque[Event] = deque()
        self.cursor: str | None = since.after

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        while True:
            while self._page:
                event = self._page.popleft()
                self.cursor = event.cursor
                if event.type != BOOKMARK:
                    return event
            await self._read()

    async def _read(self) -> None:
        """Wait for the next page, through whatever happens to the database."""
        backoff = Backoff()
        while not self._page:
            hint = self._source.hint
            try:
                if self.cursor == "now":
                    self.cursor = await self._source.head()
                page = await self._caller.run(replace(self._since, after=self.cursor))
            except DatabaseUnavailable as error:
                log.warning("stream.interrupted", error=str(error), retry_s=backoff.next_s)
                await backoff.wait()
                continue
            self._page.extend(page)
            if not page:
                await hint.wait()
