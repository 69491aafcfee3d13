"""The manager: plans, enqueues a job for each share, waits until QA has passed all of them, and signs off.

It keeps nothing in memory that it cannot read again, so it can be restarted at any point.

usage: python -m examples.fleet.manager URL PROJECT ROOT
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import anyio

import coordinator
from coordinator.errors import DatabaseUnavailable
from examples.fleet import work
from examples.fleet.work import DONE, PASSED, PLAN, RETRY_S, SHARES


async def plan(client: coordinator.Client, root: Path) -> None:
    """Announce the plan and enqueue the jobs. A second call changes nothing: keys and uids make both harmless."""
    shares = work.shares(root)
    await client.messages.append(
        PLAN, "manager", f"Count {sum(map(len, shares))} files in {SHARES} shares.", uid="plan"
    )
    await client.jobs.enqueue_many(
        {
            "type": "code",
            "payload": {"share": number, "files": files},
            "locks": [work.result_of(number)],
            "dedupe_key": f"code/{number}",
            "dedupe_for": 3600,
            "on_duplicate": "skip",
            **work.RETRIES,
        }
        for number, files in enumerate(shares, 1)
    )


async def all_passed(client: coordinator.Client) -> None:
    """Return when QA has passed every share."""
    after = await client.events.head()  # before the list, so that no event between list and stream is missed
    passed = {signal.key async for signal in client.signals.list("share/") if signal.key.endswith(PASSED)}
    if len(passed) < SHARES:
        async for event in client.events.stream(topics=["signal.set"], after=after):
            if event.key.endswith(PASSED):
                passed.add(event.key)
            if len(passed) == SHARES:
                break


async def sign_off(client: coordinator.Client) -> None:
    """Add up the results, store the report, and tell the other processes that they can stop."""
    total: Counter[str] = Counter()
    for number in range(1, SHARES + 1):
        total.update(json.loads(await client.artifacts.get(work.result_of(number), session=PLAN)))
    await client.artifacts.put(work.REPORT, json.dumps(total).encode(), session=PLAN)
    await client.messages.append(PLAN, "manager", f"Signed off: {total['lines']} lines.", uid="signed off")
    await client.signals.set(DONE, True, critical=True)


async def main(url: str, project: str, root: str) -> None:
    async with coordinator.connect(url, project=project, agent="manager") as client:
        while True:
            try:
                await plan(client, Path(root))
                await all_passed(client)
                await sign_off(client)
                break
            except DatabaseUnavailable:  # the database restarts; everything above can be repeated
                await anyio.sleep(RETRY_S)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
