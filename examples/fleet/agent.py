"""An agent: claims shares and counts, counts again what others counted, and does what directives say.

A share is claimed with an ephemeral signal and compare-and-set: two agents never hold one claim, and a dead agent's claim
ends with the agent. An agent wakes when an event changes its board, and never polls.

usage: python -m examples.fleet.agent URL PROJECT ROOT AFTER NAME
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import anyio

import coordinator
from coordinator.errors import Conflict
from examples.fleet import work
from examples.fleet.board import ROLE, Board

PACE_S = 2.0  # for one share, so that a person can follow


class Agent:
    """One agent at work."""

    def __init__(self, client: coordinator.Client, name: str, root: Path) -> None:
        self._client = client
        self._name = name
        self._root = root
        self._board = Board()
        self._changed = anyio.Event()

    async def run(self, after: str) -> None:
        """Work until the manager says that everything is done."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, after)
            while not self._board.done:
                changed = self._changed
                if not await self._step():
                    await changed.wait()
            tasks.cancel_scope.cancel()

    async def _follow(self, after: str) -> None:
        async for event in self._client.events.stream(topics=["signal.*", "directive.sent"], after=after):
            self._board.apply(event)
            if event.type == "directive.sent":
                for directive in await self._client.directives.inbox():
                    await self._client.directives.acknowledge(directive, "done")
            changed, self._changed = self._changed, anyio.Event()
            changed.set()

    async def _step(self) -> bool:
        """Do one thing; return false if there is nothing to do."""
        if unchecked := self._board.unchecked(self._name):
            await self._check(random.choice(unchecked))  # noqa: S311
        elif free := self._board.open():
            await self._do(random.choice(free))  # noqa: S311
        else:
            return False
        return True

    async def _claim(self, key: str) -> int | None:
        """Claim something; return the version of the claim, or none if somebody else was faster."""
        changed = self._changed
        try:
            return (await self._client.signals.set(key, ephemeral=True, expect=0)).version
        except Conflict:
            await changed.wait()  # the board is behind, so an event is on its way
            return None

    async def _state(self, share: str) -> dict[str, object]:
        """Read the present flags of a share."""
        return {signal.key.rpartition("/")[2]: signal.value async for signal in self._client.signals.list(f"{share}/")}

    async def _do(self, number: int) -> None:
        share, signals = f"share/{number}", self._client.signals
        if (claim := await self._claim(f"{share}/CLAIMED")) is None:
            return
        state = await self._state(share)
        if "COMPLETED" not in state:
            if "REJECTED" in state:
                await signals.delete(f"{share}/REJECTED")
            await anyio.sleep(PACE_S / 2)
            await self._client.events.emit("custom.share_half_done", key=share)
            await anyio.sleep(PACE_S / 2)
            await signals.set(f"{share}/COMPLETED", self._count(number), expect=0)
        await signals.delete(f"{share}/CLAIMED", expect=claim)

    async def _check(self, number: int) -> None:
        share, signals = f"share/{number}", self._client.signals
        if (claim := await self._claim(f"{share}/QA_CLAIMED")) is None:
            return
        state = await self._state(share)
        if "COMPLETED" in state and "QA_PASSED" not in state:
            if state["COMPLETED"] == self._count(number):
                await signals.set(f"{share}/QA_PASSED", expect=0)
            else:
                await signals.set(f"{share}/REJECTED", "a second count gives other numbers")
        await signals.delete(f"{share}/QA_CLAIMED", expect=claim)

    def _count(self, number: int) -> dict[str, int]:
        return work.count(self._root, self._board.shares[number]["FILES"].value)


async def main(url: str, project: str, root: str, after: str, name: str) -> None:
    async with coordinator.connect(url, project=project, agent=name, role=ROLE) as client:
        await Agent(client, name, Path(root)).run(after)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
