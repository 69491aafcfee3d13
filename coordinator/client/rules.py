"""Rules: what setting one signal clears, in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.client.caller import Caller
from coordinator.client.listing import PAGE, Listing
from coordinator.model.signal import Rule
from coordinator.operations import rules

__all__ = ["Rules"]


class Rules:
    """The rules that hold in the client's project."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def set(self, when_set: str, clears: Sequence[str], *, everywhere: bool = False) -> Rule:
        """Make or change the rule for setting a last segment: it clears ``clears`` beside it, here or ``everywhere``."""
        return await self._caller.run(
            rules.Set(
                project=self._caller.project,
                when_set=when_set,
                clears=list(clears),
                everywhere=everywhere,
                actor=await self._caller.actor(),
            )
        )

    def list(self, *, after: str | None = None, limit: int = PAGE) -> Listing[Rule]:
        """List the rules that hold in the project, by what is set; its own come before those for all."""
        return Listing(self._caller, rules.List(project=self._caller.project, limit=limit), after)

    async def delete(self, when_set: str, *, everywhere: bool = False) -> None:
        """Delete a rule.

        Raises: ``NotFound``.
        """
        await self._caller.run(
            rules.Delete(
                project=self._caller.project,
                when_set=when_set,
                everywhere=everywhere,
                actor=await self._caller.actor(),
            )
        )
