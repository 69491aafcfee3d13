"""A watcher: prints every change, even across restarts of the database and of the watcher. usage: watcher.py URL [CURSOR]."""

import sys

import anyio

import coordinator


async def main(url: str, after: str | None = None) -> None:
    async with coordinator.connect(url) as client:
        async for event in client.events.stream(after=after):
            if event.type == "reset":
                print("events are gone:", event.data["reason"], file=sys.stderr)
            print(event.cursor, event.type, event.key, event.actor, flush=True)


anyio.run(main, *sys.argv[1:])
