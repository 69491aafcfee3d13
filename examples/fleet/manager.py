"""The manager: gives out shares of the files, rejects one result, addresses everyone. It only reacts to events.

usage: python -m examples.fleet.manager URL PROJECT ROOT AFTER
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

import coordinator
from examples.fleet import work
from examples.fleet.board import AGENTS, DONE, MANAGER, ROLE, SHARES, Board


async def main(url: str, project: str, root: str, after: str) -> None:
    files = work.find(Path(root))
    board = Board()
    registered: set[str] = set()
    rejected = False
    async with coordinator.connect(url, project=project, agent=MANAGER) as client:
        async for event in client.events.stream(after=after):
            changed = board.apply(event)
            if event.type == "agent.registered" and event.data["role"] == ROLE:
                registered.add(event.actor)
                if len(registered) == AGENTS:
                    for number in range(1, SHARES + 1):
                        await client.signals.set(f"share/{number}/FILES", files[number - 1 :: SHARES])
                    await client.directives.send("Count marks like TODO, too.", to_role=ROLE)
            elif event.type == "signal.set" and changed and changed[1] == "QA_PASSED" and not rejected:
                rejected = True
                await client.signals.set(f"share/{changed[0]}/REJECTED", "count once more, please")
            elif len(board.accepted()) == SHARES:
                break
        await client.signals.set(DONE)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
