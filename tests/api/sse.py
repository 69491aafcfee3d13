"""A client for Server-Sent Events, as a browser reads them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import msgspec

from tests.waiting import DEADLINE_S


class Frame(msgspec.Struct):
    id: str | None
    event: str | None
    data: Any
    comment: str | None = None


class Frames:
    """The frames of one response, read one by one, each within a deadline."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id: str | None = None
        self._lines = response.aiter_lines()

    async def next(self) -> Frame | None:
        """Return the next frame or comment; None at the end of the response."""
        frame = Frame(None, None, None)
        begun = False
        with anyio.fail_after(DEADLINE_S):
            async for line in self._lines:
                if not line:
                    if begun:
                        self.last_id = frame.id or self.last_id
                        return frame
                    continue
                begun = True
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "id":
                    frame.id = value
                elif name == "event":
                    frame.event = value
                elif name == "data":
                    frame.data = json.loads(value)
                elif not name:
                    frame.comment = value
        return None

    async def until(self, event: str) -> list[Frame]:
        """Return the frames up to and including the first of a type."""
        found = []
        with anyio.fail_after(DEADLINE_S):
            while True:
                frame = await self.next()
                assert frame is not None, f"the stream ended before {event}"
                found.append(frame)
                if frame.event == event:
                    return found

    async def events(self, count: int, projects: Collection[str] = ()) -> list[Frame]:
        """Return this many events, of these projects if any are named; skip everything else."""
        found: list[Frame] = []
        with anyio.fail_after(DEADLINE_S):
            while len(found) < count:
                frame = await self.next()
                assert frame is not None, "the stream ended"
                if frame.event not in (None, "ready") and (not projects or frame.data["project"] in projects):
                    found.append(frame)
        return found


@asynccontextmanager
async def stream(
    http: httpx.AsyncClient, *, headers: dict[str, str] | None = None, **query: Any
) -> AsyncIterator[Frames]:
    async with http.stream("GET", "/v1/events/stream", params=query, headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
        yield Frames(response)


async def emit(
    http: httpx.AsyncClient, project: str, *keys: str, type: str = "custom.tick", actor: str | None = None
) -> None:
    for key in keys:
        body = {"project": project, "type": type, "key": key, "actor": actor}
        answer = await http.post("/v1/events/emit", json=body)
        assert answer.status_code == 200, answer.text
