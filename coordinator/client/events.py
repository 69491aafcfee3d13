"""Events: emitting them, and following them without gaps.

A stream reads the log after a cursor (see ``operations.log_reader``); a notification only makes it read sooner. So it
misses nothing, repeats nothing and stays in order, whatever happens to connections. After an interruption of any
length, it continues where it was. If events are gone (pruned, or the database was restored), it returns an event of
type ``reset``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from weakref import WeakSet

import structlog
from anyio.abc import TaskGroup

from coordinator.backoff import Backoff
from coordinator.client.caller import Caller
from coordinator.db.session import SessionWake
from coordinator.errors import CoordinatorError, DatabaseUnavailable
from coordinator.model.event import Event
from coordinator.model.operation import Json
from coordinator.operations import events
from coordinator.operations.log_reader import LogReader
from coordinator.progress import Progress
from coordinator.telemetry import tracing

__all__ = ["EventStream", "Events"]

log = structlog.get_logger()


_Heard = tuple[str | None, tuple[str, ...]]  # a project, or None for all; topics, or none for any


class Events:
    """The events of the client's project; with ``everywhere``, of all projects."""

    def __init__(self, caller: Caller, tasks: TaskGroup, beside: Events | None = None) -> None:
        self._caller = caller
        self._tasks = tasks
        # The readers that each listening connection wakes; a stream needs no closing.
        self.hints: dict[_Heard, WeakSet[SessionWake]] = {} if beside is None else beside.hints

    async def emit(self, type: str, *, key: str | None = None, data: Mapping[str, Json] | None = None) -> None:
        """Emit a custom event, with a type ``custom.…``."""
        await self._caller.run(events.Emit(type=type, key=key, data=dict(data or {}), **await self._caller.author()))

    async def configure(self, payloads: str) -> bool:
        """Choose what NOTIFY sends to ``LISTEN`` clients: ``full``, ``pointer`` or ``head``; return false if nothing changed.

        Raises: ``InvalidArgument``; ``PermissionDenied`` without the role admin.
        """
        return await self._caller.run(events.Configure(payloads=payloads, actor=await self._caller.actor()))

    async def head(self) -> str:
        """Return the cursor after the newest event; read it before a snapshot, to stream from there without a gap."""
        return await self._caller.run(events.Head())

    async def since(
        self,
        after: str | None = None,
        *,
        topics: Sequence[str] = (),
        keys: Sequence[str] = (),
        actors: Sequence[str] = (),
        everywhere: bool = False,
        limit: int = 1000,
    ) -> list[Event]:
        """Return one page of the log after a cursor (default: everything that is retained), without waiting for events.

        ``keys`` are patterns such as ``task/7/*``; ``actors`` are names. Without them, events of any key or actor are
        returned.
        """
        return await self._caller.run(
            events.Since(
                after=after,
                project=None if everywhere else self._caller.project,
                topics=list(topics) or None,
                keys=list(keys) or None,
                actors=list(actors) or None,
                limit=limit,
            )
        )

    def stream(
        self,
        *,
        topics: Sequence[str] = (),
        keys: Sequence[str] = (),
        actors: Sequence[str] = (),
        after: str | None = "now",
        everywhere: bool = False,
    ) -> EventStream:
        """Follow events after a cursor: ``now`` (events after the first step), or none for everything that is retained.

        ``keys`` are patterns such as ``task/7/*``; ``actors`` are names. Without them, events of any key or actor are
        returned.

        Raises, at its first step: ``InvalidArgument`` for an invalid cursor, topic or pattern.
        """
        reader = LogReader(
            after,
            project=None if everywhere else self._caller.project,
            topics=topics,
            keys=keys,
            actors=actors,
            outlasts=(DatabaseUnavailable,),
        )
        return EventStream(reader, self._caller, self.wake(everywhere=everywhere))

    def wake(self, *, everywhere: bool = False, topics: Sequence[str] = ()) -> SessionWake:
        """Return an object that is set when the log may have grown, with the types of the events. Callers with equal filters share a connection."""
        heard: _Heard = None if everywhere else self._caller.project, tuple(topics)
        if (None, ()) in self.hints and not topics:
            heard = None, ()
        if heard not in self.hints:
            self.hints[heard] = WeakSet()
            with tracing.apart():
                self._tasks.start_soon(self._listen, *heard)
        wake = SessionWake()
        self.hints[heard].add(wake)
        return wake

    async def _listen(self, project: str | None, topics: tuple[str, ...]) -> None:
        """Keep one listening connection for the client, and forward every hint."""
        wakes = self.hints[project, topics]
        backoff = Backoff(2.0)
        progress = Progress()
        while True:
            try:
                async with self._caller.executor.wake(project=project, topics=topics) as wake:
                    progress.made()
                    while True:
                        await wake.wait(events.POLL_S)
                        for each in wakes:
                            each.set(*wake.topics)
            except CoordinatorError as error:  # if listening is refused, so are the reader's own reads
                if progress.failed(error) and not isinstance(error, DatabaseUnavailable):  # the reader reports that one
                    log.warning("stream.listen_failed", error=str(error))
            for each in wakes:
                each.set()
            await backoff.wait()


class EventStream:
    """An endless iterator of events, for one task.

    It does not have to be closed; a reader can stop and continue later. ``cursor`` is the position after the last returned event. If you store it,
    ``stream(after=cursor)`` continues there, even in another process.
    """

    def __init__(self, reader: LogReader, caller: Caller, wake: SessionWake) -> None:
        self._reader = reader
        self._caller = caller
        self._wake = wake
        self._page: deque[Event] = deque()
        self._last: str | None = None

    @property
    def cursor(self) -> str | None:
        """The position in the log."""
        return self._last if self._page else self._reader.after

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        while not self._page:
            self._page.extend(await self._reader.next(self._caller, self._wake))
            self._caller = self._caller.plain  # later reads include what the first one included
        event = self._page.popleft()
        self._last = event.cursor
        return event
