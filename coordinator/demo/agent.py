"""An agent of the demonstration: takes shares, works on them, checks those of others, does what it is told.

It follows the events and keeps a board; it wakes at a change and never polls. A share is claimed by compare-and-set with an
ephemeral signal, so two never work on one, and a dead agent's claim ends with it. Every signal is set as the agent, so
one that was given up cannot report any more.
"""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import msgspec

from coordinator.client import Client
from coordinator.demo import source
from coordinator.demo.board import ROLE, Board, Settings, share_key
from coordinator.demo.processes import play
from coordinator.errors import Conflict
from coordinator.model.directive import Directive

__all__ = ["Agent"]

STALE_S = 0.2


class Agent:
    """One agent at work."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._root = Path(settings.root)
        self._board = Board()
        self._changed = anyio.Event()
        self._mail = anyio.Event()
        self._order: Directive | None = None
        self._mail.set()

    async def run(self) -> None:
        """Work until the manager says that everything is done."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            while not self._board.done:
                changed = self._changed
                await self._read_mail()
                if not await self._step():
                    await changed.wait()
            tasks.cancel_scope.cancel()

    async def _follow(self) -> None:
        topics = ["signal.*", "directive.sent"]
        async for event in self._client.events.stream(topics=topics, after=self._settings.after):
            self._board.apply(event)
            if event.type == "directive.sent":
                self._mail.set()
            changed, self._changed = self._changed, anyio.Event()
            changed.set()

    async def _step(self) -> bool:
        """Do one thing; false if there is nothing to do."""
        if self._order is not None:
            return await self._redirected(self._order)
        if unchecked := self._board.unchecked(self._client.agent.name):
            await self._check(random.choice(unchecked))  # noqa: S311
        elif free := self._board.open():
            await self._work(random.choice(free))  # noqa: S311
        else:
            return False
        return True

    async def _read_mail(self) -> None:
        """Answer the directives that came."""
        if not self._mail.is_set():
            return
        self._mail = anyio.Event()
        for directive in await self._client.directives.inbox():
            if directive.status == "unseen":
                await self._client.directives.acknowledge(directive, "seen")
                if "take" in directive.data:
                    self._order = directive
                else:
                    await self._client.directives.acknowledge(directive, "done")

    async def _redirected(self, order: Directive) -> bool:
        self._order = None
        await self._work(int(order.data["take"]), order)  # type: ignore[arg-type]
        return True

    async def _claim(self, number: int, flag: str) -> int | None:
        """Claim a share; none if somebody else has it."""
        try:
            signal = await self._client.signals.set(share_key(number, flag), ephemeral=True, expect=0)
        except Conflict:
            with anyio.move_on_after(STALE_S):  # the board is behind
                await self._changed.wait()
            return None
        return signal.version

    async def _release(self, number: int, flag: str, version: int) -> None:
        await self._client.signals.delete(share_key(number, flag), expect=version)

    async def _present(self, number: int) -> dict[str, object]:
        """Read the present flags of a share that is claimed: the board may have been behind when it was chosen."""
        prefix = share_key(number, "")
        signals = self._client.signals.list(prefix)
        return {signal.key.removeprefix(prefix): signal.value async for signal in signals}

    async def _work(self, number: int, order: Directive | None = None) -> None:
        """Do a share; leave it when a directive says so."""
        version = await self._claim(number, "CLAIMED")
        if order is not None:
            taken = version is not None
            await self._client.directives.acknowledge(
                order, "done" if taken else "refused", reason=None if taken else "somebody else has it"
            )
        if version is None:
            return
        present = await self._present(number)
        if "COMPLETED" not in present:
            if "REJECTED" in present:
                await self._client.signals.delete(share_key(number, "REJECTED"))
            result = await self._review(number)
            if result is not None:
                await self._client.signals.set(share_key(number, "COMPLETED"), msgspec.to_builtins(result), expect=0)
                await self._client.events.emit(
                    "custom.share_reviewed", key=f"share/{number}", data={"files": result.files, "lines": result.lines}
                )
        await self._release(number, "CLAIMED", version)

    async def _review(self, number: int) -> source.Review | None:
        """Review the files of a share, at a pace that a person can follow; none if ordered elsewhere."""
        files = self._board.plan(number).files
        result = source.Review()
        for index, file in enumerate(files):
            result = source.add(result, await anyio.to_thread.run_sync(source.review, self._root, file.path))
            if index == len(files) // 2:
                await self._client.events.emit("custom.share_half_done", key=f"share/{number}")
            with anyio.move_on_after(self._settings.pace_s / len(files)):
                await self._mail.wait()
            await self._read_mail()
            if self._order is not None:
                await self._client.events.emit("custom.share_left", key=f"share/{number}")
                return None
        return result

    async def _check(self, number: int) -> None:
        """Count another agent's share again: the same is passed, something else rejected."""
        version = await self._claim(number, "QA_CLAIMED")
        if version is None:
            return
        present = await self._present(number)
        if "COMPLETED" in present and "QA_PASSED" not in present:
            result = source.Review()
            for file in self._board.plan(number).files:
                result = source.add(result, await anyio.to_thread.run_sync(source.review, self._root, file.path))
            if result == msgspec.convert(present["COMPLETED"], source.Review):
                await self._client.signals.set(share_key(number, "QA_PASSED"), expect=0)
            else:
                await self._client.signals.set(share_key(number, "REJECTED"), "a second count gives other numbers")
        await self._release(number, "QA_CLAIMED", version)


if __name__ == "__main__":
    play(Agent, ROLE)
