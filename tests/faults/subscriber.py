"""Subscribers of the event stream that are cut at random moments, and resume from a cursor."""

from __future__ import annotations

import random
from contextlib import suppress
from math import inf

import anyio
import httpx

import coordinator
from coordinator.errors import DatabaseUnavailable
from tests.api.sse import Frames
from tests.daemon import check_unavailable
from tests.http_client import http_client

__all__ = ["ClientSubscriber", "Subscriber"]

CUT_S = 0.5  # mean time until a connection is cut
EARLY = 0.2  # of the connections may be cut before they have brought anything; the others make progress on any machine
BACK_BY = 50  # places that a cursor may be behind: not every client keeps the newest
CUTS = (httpx.HTTPError, httpx.StreamError, TimeoutError, DatabaseUnavailable)


class Subscriber:
    """Reads Server-Sent Events; ``seen`` maps the number of each event to its key, in order of arrival."""

    def __init__(self, url: str, seed: int, **query: str) -> None:
        self.url = url
        self.query = {"topic": "custom.*", **query}
        self.seen: dict[int, str] = {}
        self.connections = 0
        self._random = random.Random(seed)
        self._places: list[tuple[str | None, int]] = [(None, 0)]  # cursors, each with the number that it follows
        self._latest = 0
        self._cut = anyio.CancelScope()
        self._lasts_s = inf

    async def run(self, last: str) -> None:
        """Read until the event with that key has arrived."""
        while last not in self.seen.values():
            cursor, self._latest = self._places[-1]
            if self._random.random() < 0.2:
                cursor, self._latest = self._random.choice(self._places[-BACK_BY:])
            lasts_s = self._random.expovariate(1 / CUT_S)
            with suppress(*CUTS), anyio.CancelScope() as self._cut:
                if self._random.random() < EARLY:
                    self._cut.deadline = anyio.current_time() + lasts_s
                self._lasts_s = lasts_s
                await self._connect(cursor, last)
            await anyio.sleep(0.01)

    async def _connect(self, cursor: str | None, last: str) -> None:
        headers = {"last-event-id": cursor} if cursor else {}
        query = {"after": "start", **self.query}
        async with (
            http_client(self.url) as http,
            http.stream("GET", "/v1/events/stream", params=query, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                await response.aread()
                check_unavailable(response)
                return
            self.connections += 1
            frames = Frames(response)
            while frame := await frames.next():
                if frame.event not in (None, "ready", "bye"):
                    assert frame.event != "reset", frame
                    self._take(frame.data["seq"], frame.data["key"])
                if frame.id:
                    self._places.append((frame.id, self._latest))
                if self.seen.get(self._latest) == last:
                    return

    def _take(self, seq: int, key: str) -> None:
        assert seq > self._latest, f"event {seq} came after {self._latest} on one connection, or again after its cursor"
        self._latest = seq
        if seq not in self.seen:
            self.seen[seq] = key
            self._cut.deadline = min(self._cut.deadline, anyio.current_time() + self._lasts_s)


class ClientSubscriber(Subscriber):
    """Reads with the Python client, which resumes itself; the test does not cut it."""

    async def run(self, last: str) -> None:
        """Read until the event with that key has arrived."""
        await self._connect(None, last)

    async def _connect(self, cursor: str | None, last: str) -> None:
        async with coordinator.connect(self.url) as client:
            self.connections += 1
            async for event in client.events.stream(after=cursor, topics=[self.query["topic"]], everywhere=True):
                assert event.type != "reset", event
                self._take(event.seq, event.key or "")
                if event.key == last:
                    return
