"""An agent in a process of its own. It sets an ephemeral signal, reports it, and lives until it is killed."""

from __future__ import annotations

import sys

import anyio

import coordinator


async def main(url: str) -> None:
    async with coordinator.connect(url, agent="mortal", ttl=600) as client:
        await client.signals.set("held", ephemeral=True)
        print(client.agent.id, flush=True)  # noqa: T201
        await anyio.sleep(600)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
