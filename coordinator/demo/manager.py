"""The manager of the demonstration: divides the work, rejects a result, redirects an agent, addresses everyone.

It follows the events and reacts; what it waits for is always an event, but for the time until which the last shares are
held back (so that an agent that is killed then is given up at once: a server gives up nobody in its first 10 seconds).
"""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import msgspec
from anyio.abc import TaskGroup

from coordinator.client import Client
from coordinator.demo import source
from coordinator.demo.board import AGENTS, DONE, MANAGER, ROLE, Board, Plan, Settings, share_key
from coordinator.demo.processes import play
from coordinator.model.event import Event

__all__ = ["SHARES", "Manager"]

SHARES = 19
FIRST_SHARES = 12
RESERVED = SHARES


class Manager:
    """The manager at work."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._board = Board()
        files, _ = source.find(Path(settings.root))
        self._shares = source.split(files, SHARES)
        self._agents: set[str] = set()
        self._claimed_by: set[str] = set()
        self._redirect: int | None = None
        self._broadcast: int | None = None
        self._answered: set[str] = set()
        self._rejected = False

    async def run(self) -> None:
        """Manage until every share is completed and checked."""
        async with anyio.create_task_group() as tasks:
            async for event in self._client.events.stream(after=self._settings.after):
                change = self._board.apply(event)
                await self._react(event, change, tasks)
                if len(self._board.accepted()) == SHARES:
                    break
            await self._client.signals.set(DONE)

    async def _react(self, event: Event, change: tuple[int, str] | None, tasks: TaskGroup) -> None:
        match event.type:
            case "agent.registered" if event.data["role"] == ROLE:
                self._agents.add(event.actor)
                if len(self._agents) == AGENTS:
                    await self._publish(1, FIRST_SHARES)
                    await self._publish(RESERVED, RESERVED)
            case "signal.set" if change is not None and change[1] == "CLAIMED":
                self._claimed_by.add(event.actor)
                if len(self._claimed_by) == AGENTS and self._redirect is None:
                    await self._send_elsewhere(event.actor, change[0])
            case "signal.set" if change is not None and change[1] == "QA_PASSED" and not self._rejected:
                self._rejected = True
                await self._client.signals.set(share_key(change[0], "REJECTED"), "count once more, please")
            case "directive.acknowledged" if event.data["status"] != "seen":
                await self._answer(event, tasks)

    async def _publish(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            plan = Plan(self._shares[number - 1], reserved=number == RESERVED)
            await self._client.signals.set(share_key(number, "FILES"), msgspec.to_builtins(plan))

    async def _send_elsewhere(self, agent: str, number: int) -> None:
        directive = await self._client.directives.send(
            f"Leave share {number} and take share {RESERVED} instead.",
            to=agent,
            priority=10,
            data={"leave": number, "take": RESERVED},
        )
        self._redirect = directive.id

    async def _answer(self, event: Event, tasks: TaskGroup) -> None:
        if event.key == str(self._redirect):
            directive = await self._client.directives.send("Count marks like TODO in comments only.", everyone=True)
            self._broadcast = directive.id
        elif event.key == str(self._broadcast):
            self._answered.add(event.actor)
            if self._answered >= self._agents:
                tasks.start_soon(self._publish_rest)

    async def _publish_rest(self) -> None:
        await anyio.sleep(max(0.0, self._settings.hold_until - self._settings.pace_s / 2 - time.time()))
        await self._publish(FIRST_SHARES + 1, SHARES - 1)


if __name__ == "__main__":
    play(Manager, MANAGER)
