"""A worker: does each open task, reports its result, and stops on a directive. usage: worker.py URL."""

import sys

import anyio

import coordinator
from coordinator.errors import Conflict, NotFound


async def attempt(client: coordinator.Client, todo: str) -> None:
    """Do a task unless another worker has it, or has done it."""
    task = todo.removesuffix("/TODO")
    try:  # ephemeral: the claim ends with this process
        await client.signals.set(f"{task}/CLAIMED", ephemeral=True, expect=0)
    except Conflict:
        return
    try:
        text = (await client.signals.get(todo)).value
        await client.signals.set(f"{task}/COMPLETED", {"length": len(text)})
        await client.signals.delete(todo)
    except NotFound:  # another worker has just finished it
        pass
    await client.signals.delete(f"{task}/CLAIMED")


async def main(url: str) -> None:
    async with coordinator.connect(url, agent="worker-1", role="worker") as client:
        after = await client.events.head()  # before the list, so that no task is missed
        async for signal in client.signals.list("task/"):
            if signal.key.endswith("/TODO"):
                await attempt(client, signal.key)
        async for event in client.events.stream(topics=["signal.set", "directive.sent"], after=after):
            if event.type == "directive.sent" and (mail := await client.directives.inbox()):
                await client.directives.acknowledge(mail[0], "done")
                return
            if (event.key or "").endswith("/TODO"):
                await attempt(client, event.key)


anyio.run(main, sys.argv[1])
