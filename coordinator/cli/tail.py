"""Printing events: the retained ones, then new ones.

Guarantees: events are printed in order, each at least once. With --follow, the tail reconnects with back-off and
continues after the last page that it printed. It does not wait for the first connection: without a database, it ends at
once. SIGTERM and Ctrl-C end a following tail with exit code 0, since there is no other way to stop it; they also work
while nobody reads its output.
"""

from __future__ import annotations

import shutil
import signal
import sys
from datetime import timedelta

import anyio
import msgspec

from coordinator.backoff import Backoff
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.errors import DatabaseUnavailable, InvalidArgument, WaitTimedOut
from coordinator.model.event import RESET, Event, parsed_cursor
from coordinator.model.key_pattern import check_key_patterns
from coordinator.model.topic import check_topics
from coordinator.operations.log_reader import LogReader

__all__ = ["Tail"]

DATA_MIN, DATA_MAX = 20, 120  # characters of data per line of text


class Tail:
    """One run of ``coordinator event tail``."""

    def __init__(
        self,
        call: Invocation,
        *,
        topics: tuple[str, ...],
        keys: tuple[str, ...],
        actors: tuple[str, ...],
        after: str | None,
        project: str | None,
        follow: bool,
        limit: int | None,
        timeout: timedelta | None,
    ) -> None:
        if limit is not None and limit < 1:
            raise InvalidArgument(f"--limit: {limit} is out of range", hint="It can be 1 or more.")
        check_topics(topics)
        check_key_patterns(keys)
        self._call = call
        self._reader = LogReader(after, project=project, topics=topics, keys=keys, actors=actors)
        self._reader.on_unreadable = _say_unreadable
        self._project = project
        self._topics = topics
        self._follow = follow
        self._left = limit
        self._timeout = timeout

    def run(self) -> None:
        """Print until the end.

        Raises: ``DatabaseUnavailable``; ``WaitTimedOut``; ``InvalidArgument`` for an invalid cursor or topic.
        """
        anyio.run(self._until_ended)

    async def _until_ended(self) -> None:
        async with anyio.create_task_group() as tasks:
            if self._follow:  # without it, an early end is an error
                tasks.start_soon(self._until_shutdown, tasks.cancel_scope)
            seconds = None if self._timeout is None else self._timeout.total_seconds()
            with anyio.move_on_after(seconds) as scope:
                await (self._following() if self._follow else self._retained())
            if scope.cancelled_caught:
                raise WaitTimedOut(
                    f"the timeout of {seconds:g} s has passed",
                    hint="To resume, give --after the cursor of the last event.",
                )
            tasks.cancel_scope.cancel()

    async def _until_shutdown(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                scope.cancel()

    async def _retained(self) -> None:
        reader = self._reader
        async with self._call.open() as executor:
            # Read to the current end of the log, since a busy log never ends.
            _, head = parsed_cursor(await reader.head(executor))
            while True:
                enough = await self._take(await reader.read(executor))
                if enough or reader.at_end or (reader.after and parsed_cursor(reader.after)[1] >= head):
                    return

    async def _following(self) -> None:
        backoff = Backoff(0.1, 5.0)
        connected = lost = False
        while True:
            try:
                async with (
                    self._call.open(direct=True) as executor,
                    executor.wake(project=self._project, topics=self._topics) as wake,
                ):
                    events = await self._reader.read(executor)
                    if lost:
                        sys.stderr.write("connected again\n")
                    connected, lost = True, False
                    backoff.reset()
                    while not await self._take(events):
                        events = await self._reader.next(executor, wake)
                    return
            except DatabaseUnavailable as error:
                if not connected:
                    raise
                if not lost:
                    sys.stderr.write(plain(f"{error.message}; trying again") + "\n")
                lost = True
            await backoff.wait()

    async def _take(self, events: list[Event]) -> bool:
        """Print events; return whether there were enough."""
        if self._left is not None:
            events = events[: self._left]
            self._left -= len(events)
        lines = []
        for event in events:
            if event.type == RESET:
                reason = event.data.get("reason")
                sys.stderr.write(
                    f"reset: events before cursor {event.cursor} are gone ({reason}); read the state again\n"
                )
            lines.append(msgspec.json.encode(event).decode() if self._call.output.json else _text(event))
        if lines:
            await self._call.output.lines(lines)
        return self._left == 0


def _say_unreadable(event: Event, limit: str) -> None:
    sys.stderr.write(plain(f"unreadable: the data of event {event.cursor} ({event.type}) exceeds {limit}") + "\n")


def _text(event: Event) -> str:
    at = event.at.astimezone().strftime("%H:%M:%S")
    head = f"{event.cursor}  {at}  {event.type}  {event.key or '-'}  {event.actor}  "
    data = msgspec.json.encode(event.data).decode()
    maximum = max(DATA_MIN, shutil.get_terminal_size().columns - len(head)) if sys.stdout.isatty() else DATA_MAX
    if len(data) > maximum:
        data = data[: maximum - 1] + "…"
    return plain(head + data)
