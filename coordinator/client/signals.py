"""Signals: a project's keys with values, versions and TTL."""

from __future__ import annotations

from coordinator.client.caller import Duration, Verbs, as_duration
from coordinator.client.listing import PAGE, Listing
from coordinator.model.agent_ref import AgentRef
from coordinator.model.operation import Json
from coordinator.model.signal import Signal
from coordinator.operations import signals

__all__ = ["Signals"]


class Signals(Verbs):
    """The signals of the client's project."""

    async def set(
        self,
        key: str,
        value: Json = True,
        *,
        ttl: Duration | None = None,
        critical: bool = False,
        expect: int | None = None,
        agent: AgentRef | None = None,
        ephemeral: bool = False,
    ) -> Signal:
        """Set a signal, and clear the signals that its rule names, in one transaction.

        ``ttl`` defaults to 24 hours; a ``critical`` signal has none. With ``expect``, set it only at this version; 0:
        only if it is not set. An ``ephemeral`` signal ends with ``agent``, by default the client's own.

        Raises: ``Conflict`` with the current version in ``detail``; ``NotFound`` if the client's agent was reaped.
        """
        return await self._caller.run(
            signals.Set(
                key=key,
                value=value,
                ttl=None if ttl is None else as_duration(ttl),
                critical=critical,
                expect=expect,
                agent=await self._caller.agent_id() if agent is None else agent,
                ephemeral=ephemeral,
                **await self._caller.author(),
            )
        )

    async def get(self, key: str) -> Signal:
        """Return a signal.

        Raises: ``NotFound`` if it is not set or has expired.
        """
        return await self._caller.run(signals.Get(project=self._caller.project, key=key))

    def list(self, prefix: str = "", *, after: str | None = None, limit: int = PAGE) -> Listing[Signal]:
        """List signals whose keys begin with ``prefix``, in byte order."""
        return Listing(self._caller, signals.List(project=self._caller.project, prefix=prefix, limit=limit), after)

    async def delete(self, key: str, *, expect: int | None = None) -> int:
        """Delete a signal, with ``expect`` only at that version; return its version.

        Raises: ``NotFound``, ``Conflict``.
        """
        return await self._caller.run(signals.Delete(key=key, expect=expect, **await self._caller.author()))
