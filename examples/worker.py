"""A worker: claims each new task, reports its result, and ends on a directive. usage: worker.py URL."""

import sys

import anyio

import coordinator
from coordinator.errors import Conflict


async def main(url: str) -> None:
    async with coordinator.connect(url, agent="worker-1", role="worker") as client:
        async for event in client.events.stream(topics=["signal.set", "directive.sent"], after=None):
            if event.type == "directive.sent" and (mail := await client.directives.inbox()):
                await client.directives.acknowledge(mail[0], "done")
                return
            task, _, flag = (event.key or "").rpartition("/")
            if flag != "TODO" or await client.signals.list(f"{task}/COMPLETED"):
                continue
            try:  # ephemeral: the claim ends with this process
                await client.signals.set(f"{task}/CLAIMED", ephemeral=True, expect=0)
            except Conflict:
                continue
            await client.signals.set(f"{task}/COMPLETED", {"length": len(event.data["value"])})


anyio.run(main, sys.argv[1])
