"""Steps: what an agent thought, did and saw in a session."""

from __future__ import annotations

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.client.logs import Expected, number_of
from coordinator.model.json import text_of
from coordinator.model.log import LogEntry, LogReceipt
from coordinator.model.operation import Json
from coordinator.operations import logs, steps

__all__ = ["Steps"]


class Steps(Verbs):
    """The steps of the sessions of the client's project."""

    async def append(
        self,
        session: str,
        thought: Json = None,
        action: Json = None,
        observation: Json = None,
        *,
        uid: str | None = None,
        expect: Expected = None,
    ) -> LogReceipt:
        """Append a step to a session; the first one creates it. What is None is omitted.

        ``uid`` makes a repetition harmless. ``expect``: as ``logs.append``.

        Raises: ``Conflict`` with what is there in ``detail``, or if the ``uid`` belongs to other content.
        """
        last, epoch = number_of(expect)
        given = {"thought": thought, "action": action, "observation": observation}
        return await self._caller.run(
            steps.Append(
                session=session,
                step=text_of({name: value for name, value in given.items() if value is not None}),
                uid=uid,
                expect=last,
                epoch=epoch,
                **await self._caller.author(),
            )
        )

    def list(
        self, session: str, *, after: str | None = None, last: int | None = None, limit: int = PAGE
    ) -> Listing[LogEntry]:
        """List the steps of a session in their order; with ``last`` only the last ones.

        Raises: as ``logs.read``.
        """
        operation = logs.Read(project=self._caller.project, kind="step", key=session, last=last, limit=limit)
        return Listing(self._caller, operation, after)
