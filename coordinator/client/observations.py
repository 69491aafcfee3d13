"""Observations: what agents noticed."""

from __future__ import annotations

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.model.json import text_of
from coordinator.model.log import LogEntry, LogReceipt
from coordinator.model.operation import Json, JsonText
from coordinator.operations import logs, observations

__all__ = ["Observations"]


class Observations(Verbs):
    """The observations of the agents of the client's project."""

    async def append(self, content: Json | JsonText, *, agent: str | None = None, uid: str | None = None) -> LogReceipt:
        """Append an observation to those of ``agent``, a name or an id; by default the client's own agent.

        ``uid`` makes a repetition harmless.

        Raises: ``NotFound`` for an unknown id; ``Conflict`` if the ``uid`` belongs to other content.
        """
        actor = await self._caller.actor()
        return await self._caller.run(
            observations.Append(
                project=self._caller.project, content=text_of(content), agent=agent or actor, uid=uid, actor=actor
            )
        )

    def list(
        self, agent: str, *, after: str | None = None, last: int | None = None, limit: int = PAGE
    ) -> Listing[LogEntry]:
        """List the observations of an agent, by name, in their order; with ``last`` only the last ones.

        Raises: as ``logs.read``.
        """
        operation = logs.Read(project=self._caller.project, kind="observation", key=agent, last=last, limit=limit)
        return Listing(self._caller, operation, after)
