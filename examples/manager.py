"""A manager: publishes tasks, waits for their results, and tells the workers to stop. usage: manager.py URL."""

import sys

import anyio

import coordinator


async def main(url: str) -> None:
    async with coordinator.connect(url, agent="manager") as client:
        after = await client.events.head()  # before the first task, so that no result is missed
        open_tasks = {f"task/{number}" for number in range(3)}
        for task in sorted(open_tasks):
            await client.signals.set(f"{task}/TODO", f"measure {task}", ttl=3600)
        async for event in client.events.stream(topics=["signal.set"], after=after):
            task, _, flag = (event.key or "").rpartition("/")
            if flag == "COMPLETED":
                print(task, event.data["value"], "by", event.actor)
                open_tasks.discard(task)
                if not open_tasks:
                    break
        await client.directives.send("That is all, thank you.", to_role="worker", key="end", ttl=60)


anyio.run(main, sys.argv[1])
