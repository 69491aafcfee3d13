"""The gateway: one reader of the event log for any number of streams and long-polls of this process.

While there are streams or long-polls, one connection listens for growth of the log and reads it. Each event is encoded
once, into a ring; a stream is a position in that ring. Streams with equal filters form a group. For each batch, the
gateway joins the group's bytes once and writes them to the socket of every member; groups that a batch does not concern
cost nothing. Thousands of agents whose streams each exclude their own events still share a group.

Guarantees: a stream's events arrive in order and without gaps, because a stream belongs to a group only while it has
all events up to the ring's head. A stream that cannot take a batch leaves the group and continues at its own pace, from
the ring or, if it is too far behind, from the log. No write waits for a socket.

On failure: while the database is unavailable, there are no new events, and streams stay open. After reconnecting, the
gateway reads the log from where it stopped. If events are lost (pruned, or the database was restored), every stream
gets the log's ``reset``. If a page cannot be delivered, this is logged, and every stream reads it from the log at its
own pace; events may then arrive twice. ``obstacle`` returns why there are no events.

When nobody has been connected for ``REST_AFTER_S`` seconds, the gateway rests: events cost it nothing. The next stream
or long-poll first reads the log's head, and the gateway follows the log from shortly before it. So events that are
emitted after ``connection`` was entered reach everyone within it.

What it deliberately does not do: store anything. After a restart or a rest, older events come from the log.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import anyio
import msgspec
import structlog
from anyio.lowlevel import checkpoint

from coordinator.api.believed import Believed
from coordinator.api.filter import Filter
from coordinator.api.memory import Memory
from coordinator.api.problems import Overloaded
from coordinator.api.ring import Frame, Ring, chunk, frame_of, runs
from coordinator.backoff import Backoff
from coordinator.config import Config
from coordinator.db.database import HEAD_CHANNEL
from coordinator.db.session import SessionWake
from coordinator.errors import CoordinatorError, ServerBehind
from coordinator.model.event import RESET, Event, epoch_order, parsed_cursor
from coordinator.model.json import decoded
from coordinator.operations.events import POLL_S, Head
from coordinator.operations.executor import Runner, Source
from coordinator.operations.log_reader import LogReader
from coordinator.progress import Progress
from coordinator.telemetry import metrics

__all__ = ["Gateway", "Reader"]

FILL_EVENTS = 1000  # events before the head that are read into the ring after a rest, for returning clients
REST_AFTER_S = 5.0  # without a stream or long-poll
HEAD_S = 0.05  # for this long, a resting gateway assumes that the log has not grown
LINGER_S = 0.002  # between reads, so that each finds more than one event
TICK_S = 1.0

log = structlog.get_logger()

Concern = Callable[[dict[str, Any]], bool]
Tap = Callable[[Event | None], None]


def _any(_data: dict[str, Any]) -> bool:
    return True


class Reader(Protocol):
    """The interface of a stream for the gateway."""

    filter: Filter
    exclude: str | None
    epoch: str | None
    seq: int

    def push(self, data: bytes, first_seq: int) -> None:
        """Write an encoded chunk that starts with event ``first_seq``, or leave the group; never wait."""

    def beat(self, now: float) -> None:
        """Write a heartbeat if nothing was written for a while."""

    def interrupt(self) -> None:
        """Stop waiting: the gateway is closing."""


class _Group:
    """Streams, waiters and taps with equal filters."""

    def __init__(self, filter: Filter) -> None:
        self.filter = filter
        self.readers: set[Reader] = set()
        self.wakes: dict[SessionWake, Concern] = {}
        self.taps: dict[object, Tap] = {}

    def wake(self, event: Event) -> None:
        if self.wakes or self.taps:
            data = decoded(event.data)
            for wake, concern in self.wakes.items():
                if concern(data):
                    wake.set()
            if self.taps:
                event = msgspec.structs.replace(event, data=data)
                for take in self.taps.values():
                    take(event)

    def deliver(self, frames: list[Frame]) -> None:
        data = chunk(b"".join([frame.data for frame in frames]))
        first = frames[0].seq
        actors = {frame.actor for frame in frames}
        for reader in tuple(self.readers):
            if reader.exclude in actors or reader.seq >= first:
                own = [frame for frame in frames if frame.seq > reader.seq and frame.actor != reader.exclude]
                if own:
                    reader.push(chunk(b"".join([frame.data for frame in own])), own[0].seq)
            else:
                reader.push(data, first)


class Gateway:
    """Follows the log for this process. The daemon makes one."""

    def __init__(self, database: Source, config: Config) -> None:
        self.config = config
        self.ring = Ring(config.http_ring_events, config.http_ring_bytes)
        self.epoch: str | None = None  # None until the log has been read
        self.closing = False
        self.started = anyio.Event()
        self.log_turns = anyio.CapacityLimiter(config.http_log_readers)
        # Of streams that read or write separately.
        self.memory = Memory(config.http_memory_bytes, config.http_write_deadline_s)
        self._database = database
        self._session = database.session(HEAD_CHANNEL, awaited=self._needed)
        self._grown = self._session.wake(HEAD_CHANNEL)
        self._reader = LogReader(limit=config.http_page, outlasts=(CoordinatorError,))
        self._progress = Progress()
        self._groups: dict[object, _Group] = {}
        self._by_project: dict[str | None, set[_Group]] = {}
        self._readers: set[Reader] = set()
        self._connections = 0
        self._left_at = 0.0
        self._awake = anyio.Event()
        self._waking = anyio.Lock()
        self._woken_at = 0  # the log's head when the last rest ended
        self._seen: tuple[str | None, int] = (None, 0)  # the newest event that a stream has read from the log itself
        self._heads: Believed[str, str] = Believed(HEAD_S)
        metrics.STREAM_CONNECTIONS.set_function(lambda: self._connections)
        metrics.STREAM_BEHIND.set_function(lambda: len(self._behind()))
        metrics.STREAM_BEHIND_EVENTS.set_function(lambda: max(self._behind(), default=0))

    async def cursor(self, runner: Runner) -> str:
        """Return the cursor after the newest event: it lags behind the end of the log by a moment, and is never ahead.

        Raises: ``DatabaseUnavailable``.
        """
        if self._awake.is_set():
            seen = self._seen[1] if self._seen[0] == self.epoch else 0
            return f"{self.epoch}.{max(self.ring.head, self._woken_at, seen)}"
        asked_at = time.monotonic()
        return self._heads.get("") or self._heads.keep("", await runner.run(Head()), asked_at)

    @property
    def database_age_s(self) -> float:
        """Seconds since the database was last known to respond."""
        return time.monotonic() - self._session.heard_at

    async def run_forever(self) -> None:
        """Follow the log until cancelled, and rest while nobody needs events."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._session.run_forever)
            tasks.start_soon(self._beat_forever)
            while not self._session.connected:
                await self._grown.wait(POLL_S)
            await self._start()
            while True:
                await self._rest()
                await self._follow()

    async def _start(self) -> None:
        """Read the log's head; streams are accepted from then on."""
        self.epoch, _ = parsed_cursor(await self._reader.head(self._session, self._grown))
        self.started.set()
        log.info("gateway.started", epoch=self.epoch)

    async def _rest(self) -> None:
        """Wait until a stream or long-poll needs events."""
        self._progress.made()
        self._reader.progress.made()
        self._awake = anyio.Event()
        await self._awake.wait()

    async def _awaken(self) -> None:
        """End the rest: follow the log from shortly before its present end.

        Raises: ``DatabaseUnavailable``.
        """
        async with self._waking:
            if self._awake.is_set():
                return
            epoch, head = parsed_cursor(await self._database.run(Head()))
            if self.epoch is not None and epoch_order(epoch) < epoch_order(self.epoch):
                raise ServerBehind(
                    "the server is behind: another one has succeeded it", hint="Try again: nothing was lost."
                )
            first = max(0, head - FILL_EVENTS)
            if epoch != self.epoch or not first <= self.ring.head <= head:
                self.ring.clear(first)
            self.epoch, self._woken_at = epoch, head
            self._reader.after = f"{epoch}.{self.ring.head}"
            self._awake.set()

    async def _follow(self) -> None:
        """Publish events of the log until nobody needs them any more."""
        reader = self._reader
        backoff = Backoff()
        told_at = self._grown.set_at
        while self._needed():
            published = self.ring.head
            try:
                events = await reader.next(self._session, self._grown)
                await self._publish(events, reader)
                # Otherwise, these events belong to an earlier notification.
                if events and told_at != self._grown.set_at:
                    told_at = self._grown.set_at
                    metrics.STREAM_SEND_SECONDS.observe(time.monotonic() - told_at)
                self._progress.made()
                backoff.reset()
            except Exception as error:  # a broken page must not end the daemon
                log.exception("gateway.failed", after=reader.after, retry_s=backoff.next_s)
                self._progress.failed(error)
                self._scatter(published, reader)
                await backoff.wait()
                continue
            if len(events) < self.config.http_page:
                await anyio.sleep(LINGER_S)

    def _needed(self) -> bool:
        """Return whether there is a stream or long-poll, or was one a moment ago."""
        return bool(self._connections) or time.monotonic() - self._left_at < REST_AFTER_S

    def _behind(self) -> list[int]:
        """Return by how many events each stream without a group is behind."""
        grouped = {reader for group in self._groups.values() for reader in group.readers}
        return [
            max(0, self.ring.head - reader.seq)
            for reader in self._readers - grouped
            if reader.epoch == self.epoch and self.ring.head > reader.seq
        ]

    def obstacle(self, tolerated_s: float) -> str | None:
        """Return why streams get no events, if that has lasted for longer than ``tolerated_s`` seconds."""
        if self.epoch is None:
            return "the event log has not been read yet"
        looks = (self._session, self._reader.progress, self._progress)
        reason = next(filter(None, (look.obstacle(tolerated_s) for look in looks)), None)
        return reason and f"the event log cannot be read: {reason}"

    def close(self) -> None:
        """End every stream and long-poll, and accept no more."""
        self.closing = True
        for reader in tuple(self._readers):
            reader.interrupt()
        self._wake(self._groups.values())

    @asynccontextmanager
    async def connection(self, reader: Reader | None = None) -> AsyncIterator[None]:
        """Count a stream or long-poll within the context, and follow the log for it.

        Raises: ``Overloaded``, ``DatabaseUnavailable``.
        """
        if self.closing:
            raise Overloaded(
                "the daemon is shutting down", hint="Try again; another daemon takes over, or this one restarts."
            )
        if self.epoch is None:
            raise Overloaded("the event log has not been read yet", hint="Try again in a second.")
        if self._connections >= self.config.http_streams:
            raise Overloaded(
                f"this daemon already serves {self._connections} streams and long-polls, its maximum",
                hint="Try again later, or use another daemon.",
            )
        self._connections += 1
        if reader is not None:
            self._readers.add(reader)
        try:
            await self._awaken()
            yield
        finally:
            self._connections -= 1
            self._left_at = time.monotonic()
            if reader is not None:
                self._readers.discard(reader)
                self.leave(reader)

    def seen(self, epoch: str, seq: int) -> None:
        """Start no stream before event ``seq`` from now on, because a stream has read it from the log before the ring had it."""
        if epoch == self.epoch:
            self._seen = (epoch, max(seq, self._seen[1] if self._seen[0] == epoch else 0))

    def join(self, reader: Reader) -> None:
        """Write each further event to a reader, which has all events up to the ring's head."""
        self._group(reader.filter).readers.add(reader)

    def leave(self, reader: Reader) -> None:
        """Stop writing to a reader."""
        group = self._groups.get(reader.filter.identity)
        if group is not None:
            group.readers.discard(reader)
            self._tidy(group)

    @contextmanager
    def watch(self, filter: Filter, concern: Concern = _any) -> Iterator[SessionWake]:
        """Return a wake that is set when an event passes filter and ``concern``, and when the gateway closes."""
        wake = SessionWake()
        group = self._group(filter)
        group.wakes[wake] = concern
        try:
            yield wake
        finally:
            del group.wakes[wake]
            self._tidy(group)

    @contextmanager
    def tap(self, filter: Filter, take: Tap) -> Iterator[None]:
        """Call ``take`` with each event that passes a filter; with None where some may be missing, and when the gateway closes.

        Within ``connection``, it gets what is emitted after that was entered. It must not wait.
        """
        joined = self.epoch, max(self.ring.head, self._woken_at)

        def take_new(event: Event | None) -> None:
            if event is None or self.epoch != joined[0] or event.seq > joined[1]:
                take(event)

        key = object()
        group = self._group(filter)
        group.taps[key] = take_new
        try:
            yield
        finally:
            del group.taps[key]
            self._tidy(group)

    def _group(self, filter: Filter) -> _Group:
        group = self._groups.get(filter.identity)
        if group is None:
            group = self._groups[filter.identity] = _Group(filter)
            for project in filter.projects or (None,):
                self._by_project.setdefault(project, set()).add(group)
        return group

    def _tidy(self, group: _Group) -> None:
        if group.readers or group.wakes or group.taps or self._groups.pop(group.filter.identity, None) is None:
            return
        for project in group.filter.projects or (None,):
            self._by_project[project].discard(group)
            if not self._by_project[project]:
                del self._by_project[project]

    async def _publish(self, events: list[Event], reader: LogReader) -> None:
        frames: list[Frame] = []
        concerned: dict[_Group, list[Frame]] = {}
        for event in events:
            if event.type == RESET:
                if decoded(event.data).get("reason") == "pruned" and event.seq <= self._woken_at:
                    self.ring.clear(event.seq)  # streams that joined have everything before it
                else:
                    self._reset(event)
                continue
            frame = frame_of(event)
            frames.append(frame)
            for project in (None, event.project):
                for group in self._by_project.get(project, ()):
                    if group.filter.takes(event):
                        group.wake(event)
                        if group.readers:
                            concerned.setdefault(group, []).append(frame)
        if frames:
            self.ring.extend(frames)
        if reader.after is not None:
            self.epoch, seq = parsed_cursor(reader.after)
            self.ring.advance(seq)
        metrics.STREAM_EVENTS.inc(len(frames))
        for group, wanted in concerned.items():
            for run in runs(wanted, self.config.http_buffer_bytes):
                group.deliver(run)
                await checkpoint()  # sockets send now; a stream that joins meanwhile already has these events

    def _reset(self, event: Event) -> None:
        log.warning("gateway.reset", cursor=event.cursor, reason=decoded(event.data).get("reason"))
        self.epoch, seq = parsed_cursor(event.cursor)
        self.ring.clear(seq)
        data = chunk(frame_of(event).data)
        for group in tuple(self._groups.values()):
            for reader in tuple(group.readers):
                reader.epoch, reader.seq = self.epoch, seq
                reader.push(data, seq + 1)
        self._wake(self._groups.values())

    def _scatter(self, seq: int, reader: LogReader) -> None:
        """Let every stream read the log itself after event ``seq``, since some may not have received a page."""
        if self.epoch is None or reader.after is None:
            return
        for group in tuple(self._groups.values()):
            for member in tuple(group.readers):
                if member.seq <= seq:
                    member.epoch, member.seq = self.epoch, seq
                self.leave(member)
                member.interrupt()
        self.epoch, head = parsed_cursor(reader.after)
        self.ring.clear(head)
        self._wake(self._groups.values())

    @staticmethod
    def _wake(groups: Iterable[_Group]) -> None:
        for group in groups:
            for wake in group.wakes:
                wake.set()
            for take in group.taps.values():
                take(None)

    async def _beat_forever(self) -> None:
        while True:
            await anyio.sleep(TICK_S)
            now = time.monotonic()
            for group in tuple(self._groups.values()):
                for reader in tuple(group.readers):
                    reader.beat(now)
