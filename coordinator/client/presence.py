"""The client's own agent: registered when the client connects, kept alive, deregistered when it closes.

There are two proofs of life. One is a heartbeat every third of the TTL. The other is a liveness lock on a direct connection:
when the process dies, the server releases that lock, and the agent is reaped within 2 seconds, with everything that it
holds. Over HTTP there is no such connection, and only the heartbeat counts; a sidecar has one.

On failure:

- The connection is lost, or the database restarts: the session reconnects and takes the same lock again under the same
  process id, and a heartbeat shows at once whether that was soon enough. While the database is down, no agent is reaped, so
  the state is ``UNKNOWN``.
- The process was paused for longer than the TTL: the agent may have been reaped. The first call that needs the agent sends
  a heartbeat first, because the last response is older than the TTL.
- The agent was reaped: it is permanently ``LOST``. This is logged, ``lost`` is set, and every call that needs the agent
  raises ``NotFound``. It is never registered again automatically: others may now hold what it held, and only the caller
  knows what to do.
"""

from __future__ import annotations

from uuid import UUID

import anyio
import structlog
from msgspec.structs import replace

from coordinator.client.lease import Lease, LeaseState, is_refusal, now_s
from coordinator.errors import CoordinatorError, DatabaseUnavailable, NotFound
from coordinator.model.agent import Agent
from coordinator.operations import agents
from coordinator.operations.executor import Runner
from coordinator.operations.liveness import Liveness
from coordinator.progress import Progress

__all__ = ["Presence"]

HEARTBEAT_TIMEOUT_S = 10.0  # longer than for the renewal of a lock: cancelling the call may cost the connection, and the liveness lock with it
DEREGISTER_S = 5.0

log = structlog.get_logger()


class Presence:
    """One incarnation of an agent: ``id`` is new at each start, ``name`` stays. ``lost`` is set when the agent was reaped."""

    def __init__(self, agent: Agent, asked_at: float, liveness: Liveness | None, executor: Runner) -> None:
        self.id = agent.id
        self.name = agent.name
        self.role = agent.role
        self.ttl = agent.ttl
        self.lost = anyio.Event()
        self._lease = Lease(agent.ttl.total_seconds(), asked_at, revivable=True)
        self._liveness = liveness
        self._executor = executor

    @classmethod
    async def register(cls, registration: agents.Register, liveness: Liveness | None, executor: Runner) -> Presence:
        """Register the agent.

        Raises: what ``agents.Register`` raises.
        """
        if liveness is not None:
            liveness.returned = anyio.Event()
            registration = replace(registration, process=liveness.process)
        asked_at = now_s()
        agent = await executor.run(registration)
        return cls(agent, asked_at, liveness, executor)

    @property
    def state(self) -> LeaseState:
        """The state of the registration, without asking the server."""
        return self._lease.state

    async def alive(self) -> UUID:
        """Return the agent's id; send a heartbeat first if the last response is older than the TTL.

        Raises: ``NotFound`` if the agent was reaped; ``DatabaseUnavailable`` if the server does not respond.
        """
        if self._lease.live and not self._lease.remaining_s:
            await self._heartbeat()
        if self.lost.is_set():
            raise NotFound(
                f'agent "{self.name}" ({self.id}) was reaped, with all that it held',
                hint="Stop its work, and connect again to register.",
                code="ZC202",
            )
        return self.id

    async def keep(self) -> None:
        """Send heartbeats until the agent is lost. Log once that they fail, and once that they succeed again."""
        progress = Progress()
        while self._lease.live:
            if self._liveness is None:
                await self._lease.wait_due(anyio.Event())
            else:
                await self._lease.wait_due(self._liveness.returned)
                self._liveness.returned = anyio.Event()
            try:
                await self._heartbeat()
            except CoordinatorError as error:
                if progress.failed(error):
                    log.warning("agent.heartbeat_failed", agent=self.name, error=str(error))
            else:
                if progress.made():
                    log.info("agent.heartbeat_resumed", agent=self.name)

    async def deregister(self) -> None:
        """Deregister the agent, unless the server does not respond in time; its liveness lock ends with the connection."""
        if self.lost.is_set():
            return
        with anyio.move_on_after(DEREGISTER_S, shield=True) as scope:
            try:
                await self._executor.run(agents.Deregister(agent=self.id))
            except NotFound:
                self.lose()
            except CoordinatorError as error:
                log.warning("agent.deregister_failed", agent=self.name, error=str(error))
        if scope.cancelled_caught:
            log.warning("agent.deregister_failed", agent=self.name, error="no answer in time")
        self._lease.release()

    def lose(self) -> None:
        """Record that the server reported the agent as reaped."""
        self._lease.refused()
        if not self.lost.is_set():
            log.error("agent.lost", agent=self.name, id=str(self.id), hint="It was reaped, with all that it held.")
            self.lost.set()

    async def _heartbeat(self) -> None:
        """Send one heartbeat, on the direct connection if there is one, since other calls cannot keep it busy.

        Raises: ``CoordinatorError`` if there is no response.
        """
        session = None if self._liveness is None else self._liveness.session
        runner = session if session is not None and session.connected else self._executor
        asked_at = now_s()
        try:
            with anyio.fail_after(HEARTBEAT_TIMEOUT_S):
                await runner.run(agents.Heartbeat(agent=self.id))
        except CoordinatorError as error:
            if is_refusal(error):
                self.lose()
                return
            self._lease.unanswered()
            raise
        except TimeoutError:
            self._lease.unanswered()
            raise DatabaseUnavailable("no answer to a heartbeat", hint="The client tries again.") from None
        self._lease.answered(asked_at)
