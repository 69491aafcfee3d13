"""A LISTEN client that records payloads and arrival times, and parses them only afterwards."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec

from bench.place import Place

__all__ = ["Heard", "listening"]


class _Event(msgspec.Struct):
    seq: int
    key: str | None
    at: datetime


class Heard:
    """The payloads received, in order of arrival."""

    def __init__(self) -> None:
        self._arrivals: list[tuple[float, str]] = []

    def __call__(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._arrivals.append((time.time(), str(payload)))

    def clear(self) -> None:
        """Forget everything received."""
        self._arrivals.clear()

    def last(self) -> float | None:
        """Return when the last event arrived, in seconds since 1970."""
        return self._arrivals[-1][0] if self._arrivals else None

    def latencies(self) -> list[tuple[float, float]]:
        """Return the arrival time (s) and latency (ms) of each event; end the run if one is missing.

        The latency is counted from the clock that the call itself read, so its commit is part of it.
        """
        found = []
        last_seq = None
        for arrival, payload in self._arrivals:
            event = msgspec.json.decode(payload, type=_Event)
            if last_seq is not None and event.seq != last_seq + 1:
                raise SystemExit(f"event {last_seq + 1} did not arrive, {event.seq} came instead")
            last_seq = event.seq
            found.append((arrival, (arrival - event.at.timestamp()) * 1000))
        return found


@asynccontextmanager
async def listening(place: Place, channel: str) -> AsyncIterator[Heard]:
    """Listen on one channel while the context lasts."""
    connection = await place.connect()
    heard = Heard()
    try:
        await connection.add_listener(channel, heard)
        yield heard
    finally:
        await connection.close()
