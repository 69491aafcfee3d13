"""Printing events: what is retained, then what comes.

Guarantees: in order, each at least once; while it follows, a lost connection is made anew with back-off and the tail goes
on from the last event that it printed. The first connection is not waited for: without a database the tail ends at once.
SIGTERM and Ctrl-C end a tail that follows with exit code 0, as ending is how one stops following; also while nobody reads.
"""

from __future__ import annotations

import signal
import sys
from datetime import timedelta

import anyio
import msgspec

from coordinator.backoff import Backoff
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.errors import DatabaseUnavailable, InvalidArgument, WaitTimedOut
from coordinator.model.event import BOOKMARK, RESET, Event
from coordinator.operations.events import Head, Since, follow
from coordinator.operations.executor import Executor

__all__ = ["Tail"]

PAGE = 1000
DATA_MOST = 120  # characters of data on a line of text


class Tail:
    """One run of ``coordinator event tail``."""

    def __init__(
        self,
        call: Invocation,
        *,
        topics: tuple[str, ...],
        after: str | None,
        project: str | None,
        follow: bool,
        limit: int | None,
        timeout: timedelta | None,
    ) -> None:
        if limit is not None and limit < 1:
            raise InvalidArgument(f"--limit: {limit} is out of range", hint="It can be 1 or more.")
        self._call = call
        self._topics = topics
        self._cursor = after
        self._project = project
        self._follow = follow
        self._left = limit
        self._timeout = timeout

    def run(self) -> None:
        """Print until the end.

        Raises: ``DatabaseUnavailable``; ``WaitTimedOut``; ``InvalidArgument`` for what is no cursor or topic.
        """
        anyio.run(self._until_ended)

    async def _until_ended(self) -> None:
        async with anyio.create_task_group() as tasks:
            if self._follow:  # else ending it cuts it off, and is no success
                tasks.start_soon(self._until_shutdown, tasks.cancel_scope)
            seconds = None if self._timeout is None else self._timeout.total_seconds()
            with anyio.move_on_after(seconds) as scope:
                await (self._following() if self._follow else self._retained())
            if scope.cancelled_caught:
                raise WaitTimedOut(f"{seconds:g} seconds are over", hint="Go on from the cursor of the last event.")
            tasks.cancel_scope.cancel()

    async def _until_shutdown(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                scope.cancel()

    async def _retained(self) -> None:
        async with self._call.open() as executor:
            # What is emitted meanwhile is not waited for: else a busy log would have no end.
            head = await executor.run(Head())
            head_seq = int(head.rpartition(".")[2])
            seq = -1
            while seq < head_seq:
                page = await executor.run(
                    Since(
                        after=self._cursor,
                        project=self._project,
                        topics=[*self._topics] or None,
                        limit=PAGE,
                        bookmarks=True,
                    )
                )
                if not page or await self._print([event for event in page if event.type != BOOKMARK]):
                    return
                self._cursor, seq = page[-1].cursor, page[-1].seq

    async def _following(self) -> None:
        backoff: Backoff | None = None  # none before the first connection
        while True:
            try:
                async with self._call.open(direct=True) as executor:
                    if backoff:
                        self._call.output.note("connected again")
                    backoff = Backoff(0.1, 5.0)
                    if await self._pages(executor):
                        return
            except DatabaseUnavailable as error:
                if not backoff:
                    raise
                self._call.output.note(f"{error.message}; trying again")
            await backoff.wait()

    async def _pages(self, executor: Executor) -> bool:
        """Print pages; true when there have been enough."""
        if self._cursor == "now":
            self._cursor = await executor.run(Head())  # now is now, and not when the connection came back
        async for page in follow(executor, cursor=self._cursor, project=self._project, topics=self._topics):
            if await self._print(page):
                return True
        return False

    async def _print(self, events: list[Event]) -> bool:
        """Print events; true when there have been enough."""
        if self._left is not None:
            events = events[: self._left]
            self._left -= len(events)
        lines = []
        for event in events:
            if event.type == RESET:
                reason = event.data.get("reason")
                sys.stderr.write(
                    f"reset: events before cursor {event.cursor} are gone ({reason}); look at everything afresh\n"
                )
            lines.append(msgspec.json.encode(event).decode() if self._call.output.json else _text(event))
        if events:
            await self._call.output.lines(lines)
            self._cursor = events[-1].cursor
        return self._left == 0


def _text(event: Event) -> str:
    data = msgspec.json.encode(event.data).decode()
    if len(data) > DATA_MOST:
        data = data[: DATA_MOST - 1] + "…"
    at = event.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    return plain(f"{at} {event.seq:>6} {event.type:<22} {event.key or '-'}  {event.actor}  {data}")
