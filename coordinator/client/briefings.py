"""Briefings: what an agent should know before it continues."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.model.briefing import Briefing, BriefingItem
from coordinator.operations import briefings

__all__ = ["Briefings"]


class Briefings(Verbs):
    """The briefings of agents in the client's project."""

    async def read(self, agent: str, *, news: bool = False, again: bool = True) -> list[BriefingItem]:
        """Brief an agent, given by name or id: directives, signals that it watches, other agents, and locks that they hold.

        Directives that are returned become seen. ``news``: only directives and signals, and each only once. ``again``: also directives that it
        has seen and not answered.

        Raises: ``NotFound`` if no agent of this name or id is known.
        """
        return await self._caller.run(briefings.Read(project=self._caller.project, agent=agent, news=news, again=again))

    async def subscribe(self, agent: str, patterns: Sequence[str]) -> Briefing:
        """Choose the signals that an agent is told about, by patterns such as ``build/*``. Without patterns, the subscription ends.

        Raises: ``NotFound`` if no agent of this name or id is known.
        """
        return await self._caller.run(
            briefings.Subscribe(project=self._caller.project, agent=agent, patterns=list(patterns))
        )

    def list(self, *, after: str | None = None, limit: int = PAGE) -> Listing[Briefing]:
        """List what the agents of the project watch and were told, by name."""
        return Listing(self._caller, briefings.List(project=self._caller.project, limit=limit), after)
