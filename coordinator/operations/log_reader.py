"""Reading the event log: after a position, page by page, across any interruption of the connection.

Guarantees: a reader returns every event after its position once, in order. The position ``after`` moves only when a
page is returned: a read that fails or is cancelled has no effect, and the reader continues later, over the same
connection or another. If events are gone, it returns an event of type ``reset``. Bookmarks only move the position.

On failure: the reader retries after errors of the kinds in ``outlasts``, with a back-off that a hint ends; it raises
others. It logs the first of several failures in a row, and the recovery. A lost hint costs at most ``POLL_S`` seconds,
never an event.

What it deliberately does not do: hold a connection, or know who needs the events. A reader that nobody asks does
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from coordinator.backoff import Backoff
from coordinator.errors import CoordinatorError
from coordinator.model.event import BOOKMARK, Event
from coordinator.model.json import fault_of
from coordinator.model.key_pattern import check_key_patterns
from coordinator.model.operation import Operation
from coordinator.model.topic import check_topics
from coordinator.operations.events import POLL_S, Head, Since
from coordinator.operations.executor import Runner, Wake
from coordinator.progress import Progress

__all__ = ["LogReader"]

PAGE = 1000  # events

R = TypeVar("R")


class LogReader:
    """A position in the log, and the filter of events to read after it.

    ``after`` is a cursor, ``now`` (events after the first read), or None (everything that is retained). ``at_end``: the
    last read found nothing more. ``progress`` tracks the failures that it waits for. ``on_unreadable`` is called with
    each event whose data exceeded a limit, and that limit; by default, it logs.
    """

    def __init__(
        self,
        after: str | None = None,
        *,
        project: str | None = None,
        topics: Sequence[str] = (),
        keys: Sequence[str] = (),
        actors: Sequence[str] = (),
        limit: int = PAGE,
        outlasts: tuple[type[CoordinatorError], ...] = (),
    ) -> None:
        self.after = after
        self.at_end = False
        self.progress = Progress()
        self.on_unreadable: Callable[[Event, str], None] = _log_unreadable
        self._wanted = Since(
            project=project,
            topics=list(topics) or None,
            keys=list(keys) or None,
            actors=list(actors) or None,
            limit=limit,
            bookmarks=True,
        )
        self._outlasts = outlasts

    async def read(self, runner: Runner, wake: Wake | None = None) -> list[Event]:
        """Read a page. It is empty at the end, and if nothing matches up to the new position. ``wake`` ends a back-off.

        Raises: what ``Since`` raises; ``InvalidArgument`` for an unknown topic or an invalid pattern of keys.
        """
        check_topics(self._wanted.topics or ())
        check_key_patterns(self._wanted.keys or ())
        if self.after == "now":
            self.after = await self.head(runner, wake)
        page = await self._run(runner, replace(self._wanted, after=self.after), wake)
        self.at_end = not page
        for event in page:
            if fault := fault_of(event.data):
                self.on_unreadable(event, fault)
        if page:
            self.after = page[-1].cursor
        return [event for event in page if event.type != BOOKMARK]

    async def next(self, runner: Runner, wake: Wake) -> list[Event]:
        """Read a page; at the end, wait until the position can move. ``wake`` is set when the log may have grown.

        Raises: what ``Since`` raises.
        """
        while True:
            events = await self.read(runner, wake)
            if not self.at_end:
                return events
            await wake.wait(POLL_S)

    async def head(self, runner: Runner, wake: Wake | None = None) -> str:
        """Read the position at the end of the log.

        Raises: what ``Head`` raises.
        """
        return await self._run(runner, Head(), wake)

    async def _run(self, runner: Runner, operation: Operation[R], wake: Wake | None) -> R:
        backoff = Backoff()
        while True:
            try:
                result = await runner.run(operation)
            except self._outlasts as error:
                if self.progress.failed(error):
                    _log().warning("log.read_failed", after=self.after, error=error.message)
            else:
                if self.progress.made():
                    _log().info("log.read_resumed", after=self.after)
                return result
            await backoff.wait(None if wake is None else wake.wait)


def _log_unreadable(event: Event, limit: str) -> None:
    _log().warning(
        "event.unreadable", cursor=event.cursor, type=event.type, project=event.project, key=event.key, limit=limit
    )


def _log() -> Any:
    import structlog  # noqa: PLC0415 - slow to import, and not needed by a command that reads the log

    return structlog.get_logger()
