"""Rules: setting one signal clears others, in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.model.signal import Rule
from coordinator.operations import rules

__all__ = ["Rules"]


class Rules(Verbs):
    """The rules that apply in the client's project."""

    async def set(self, when_set: str, clears: Sequence[str], *, everywhere: bool = False) -> Rule:
        """Create or change a rule, for this project or ``everywhere``.

        When a signal is set whose key ends with the segment ``when_set``, the signals ``clears`` with the same prefix
        are deleted.
        """
        return await self._caller.run(
            rules.Set(when_set=when_set, clears=list(clears), everywhere=everywhere, **await self._caller.author())
        )

    def list(self, *, after: str | None = None, limit: int = PAGE) -> Listing[Rule]:
        """List the rules that apply in the project, by ``when_set``; its own come before those for all projects."""
        return Listing(self._caller, rules.List(project=self._caller.project, limit=limit), after)

    async def delete(self, when_set: str, *, everywhere: bool = False) -> None:
        """Delete a rule.

        Raises: ``NotFound``.
        """
        await self._caller.run(rules.Delete(when_set=when_set, everywhere=everywhere, **await self._caller.author()))
