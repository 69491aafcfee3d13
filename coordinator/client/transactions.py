"""Transactions: several writes in one call, under conditions; all or none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coordinator.client.caller import Verbs
from coordinator.model.operation import Operation
from coordinator.operations import transactions

__all__ = ["Transactions"]


class Transactions(Verbs):
    """Transactions in the client's project."""

    async def run(self, *writes: Operation[Any], conditions: Iterable[Operation[Any]] = ()) -> list[Any]:
        """Run writes atomically if all conditions hold; return the result of each, as its own method does.

        Parts are operations of ``coordinator.operations``, such as ``signals.Set(project=client.project, key="k",
        value=1)``. Conditions hold until the writes are done. The client's own agent is the actor of writes that name
        none. Do not release a lock here that a ``client.lock`` block of this process still renews.

        A lost response may mean that the writes were done. If the writes end one of the conditions, such as the version
        of a signal that they set, a repetition is harmless: it raises ``Conflict``.

        Raises: ``Conflict`` if a condition does not hold, and what the writes raise; ``detail`` has the index of the
        failed part, from 0, as ``condition`` or ``write``, with further facts. ``InvalidArgument`` for an operation
        that cannot be a part.
        """
        run = transactions.Run.of(self._caller.project, writes, conditions, await self._caller.actor())
        return run.results(await self._caller.run(run))
