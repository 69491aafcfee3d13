"""The newest events as frames of the stream, each encoded once. Number and bytes are bounded; older events are in the log."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import structlog
from msgspec.structs import replace

from coordinator.model.event import Event
from coordinator.model.json import unreadable
from coordinator.telemetry import metrics

__all__ = ["Frame", "Ring", "bookmark", "chunk", "frame_of", "runs"]

log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


class Frame(NamedTuple):
    """An event, encoded for the stream."""

    seq: int
    type: str
    project: str | None
    key: str | None
    actor: str
    data: bytes


def frame_of(event: Event) -> Frame:
    """Encode an event."""
    try:
        encoded = _encode(event)
    except (RecursionError, ValueError, TypeError) as error:  # one event must not stop the following ones
        log.warning("event.unreadable", cursor=event.cursor, type=event.type, project=event.project, error=repr(error))
        metrics.VALUE_UNREADABLE.labels("json").inc()
        encoded = _encode(replace(event, data=unreadable("json")))
    data = b"id: %b\nevent: %b\ndata: %b\n\n" % (event.cursor.encode(), event.type.encode(), encoded)
    return Frame(event.seq, event.type, event.project, event.key, event.actor, data)


def bookmark(cursor: str) -> bytes:
    """Encode only a cursor: it moves a client's cursor and triggers no handler."""
    return b"id: %b\n\n" % cursor.encode()


def chunk(data: bytes) -> bytes:
    """Wrap bytes as one chunk of an HTTP body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def runs(frames: Iterable[Frame], max_bytes: int) -> Iterator[list[Frame]]:
    """Split frames into runs of up to ``max_bytes`` bytes, or of one frame that is larger."""
    run: list[Frame] = []
    size = 0
    for frame in frames:
        if run and size + len(frame.data) > max_bytes:
            yield run
            run, size = [], 0
        run.append(frame)
        size += len(frame.data)
    if run:
        yield run


def _seq(frame: Frame) -> int:
    return frame.seq


class Ring:
    """Holds the events after ``floor`` up to ``head``. A reader that may not see all of them receives only some numbers."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._frames: list[Frame] = []
        self._bytes = 0
        self.floor = 0
        self.head = 0

    def clear(self, seq: int) -> None:
        """Forget all events; the next follows event ``seq``."""
        self._frames.clear()
        self._bytes = 0
        self.floor = self.head = seq

    def advance(self, seq: int) -> None:
        """Record that the ring is complete up to event ``seq``."""
        self.head = max(self.head, seq)

    def extend(self, frames: Sequence[Frame]) -> None:
        """Append events after the head; drop the oldest events beyond the limits."""
        self._frames += frames
        self.head = frames[-1].seq
        self._bytes += sum(len(frame.data) for frame in frames)
        dropped = max(0, len(self._frames) - self._max_events)
        size = self._bytes - sum(len(frame.data) for frame in self._frames[:dropped])
        while size > self._max_bytes and dropped < len(self._frames):
            size -= len(self._frames[dropped].data)
            dropped += 1
        if dropped:
            self.floor = self._frames[dropped - 1].seq
        del self._frames[:dropped]
        self._bytes = size

    def covers(self, seq: int) -> bool:
        """Return whether the ring has everything after ``seq``."""
        return self.floor <= seq <= self.head

    def after(self, seq: int, limit: int, max_bytes: int) -> list[Frame]:
        """Return a run of up to ``limit`` events after ``seq``, which is covered: see ``runs``."""
        first = bisect_right(self._frames, seq, key=_seq)
        return next(runs(self._frames[first : first + limit], max_bytes), [])
