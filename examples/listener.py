"""A listener: follows one noun of a project by LISTEN, using only a driver, and misses nothing. usage: listener.py URL [NOUN [PROJECT]].

It takes events from notifications, without reading the log. If a notification is lost, the next event shows it.
"""

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import asyncpg

SINCE = "select * from coordinator.events_since($1, $2, $3, p_bookmarks => true)"


async def follow(connection: asyncpg.Connection, noun: str, project: str) -> AsyncIterator[dict[str, Any]]:
    send, heard = anyio.create_memory_object_stream[dict[str, Any]](10_000)

    def notified(*arguments: Any) -> None:
        try:
            send.send_nowait(json.loads(arguments[-1]))
        except anyio.WouldBlock:
            print("too slow: a notification is dropped", file=sys.stderr)

    cursor = await connection.fetchval("select coordinator.event_head()")
    await connection.add_listener(f"coordinator.{project}.{noun}", notified)
    lost = True  # events from before the LISTEN took effect
    while True:
        while lost:  # read the log to its end
            page = await connection.fetch(SINCE, cursor, project, [f"{noun}.*"])
            for row in page:
                cursor = row["cursor"]
                if row["type"] != "bookmark":
                    yield {**row, "data": json.loads(row["data"])}
            lost = bool(page)
        event = await heard.receive()
        epoch, seq = cursor.split(".")
        lost = event["cursor"].split(".")[0] != epoch or event["previous"] > int(seq) or "pointer" in event
        if not lost and event["seq"] > int(seq):
            cursor = event["cursor"]
            yield event


async def main(url: str, noun: str = "signal", project: str = "default") -> None:
    connection = await asyncpg.connect(url)
    async for event in follow(connection, noun, project):
        print(event["cursor"], event["type"], event["key"], event["actor"], flush=True)


anyio.run(main, *sys.argv[1:])
