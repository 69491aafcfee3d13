"""The client's own agent: registered when the client begins, kept alive, let go when it ends.

Two proofs of life. A heartbeat every third of the TTL, and a liveness lock on a direct connection: when the process dies,
the server frees the lock and the agent is reaped within 2 seconds, with all that it held. Over HTTP there is no such
connection, and the heartbeat is all; a sidecar has one.

On failure:

- The connection is lost or the database restarted: the session comes back and takes the same lock again under the same
  process id, and a heartbeat tells at once whether that was soon enough. While the database cannot be reached nobody is
  given up, and the agent does not know: ``UNKNOWN``.
- The process was paused for longer than the TTL: it was given up and cannot know. The first call that needs the agent
  asks first, since its own clock says that the last answer is older than the TTL.
- The agent was given up: ``LOST``, for good. The log says so, ``lost`` is set, and every call that needs the agent
  raises ``NotFound``. It never registers again by itself: what it held is somebody else's now, and only the caller knows
  what to do about it.
"""

from __future__ import annotations

import random
import time
from enum import Enum
from uuid import UUID

import anyio
import structlog
from msgspec.structs import replace

from coordinator.db.session import Session
from coordinator.errors import CoordinatorError, DatabaseUnavailable, NotFound
from coordinator.model.agent import Agent
from coordinator.operations import agents
from coordinator.operations.executor import Executor
from coordinator.operations.liveness import Liveness

__all__ = ["AgentState", "Presence"]

HEARTBEATS_A_TTL = 3
RETRY_S = 1.0
HEARTBEAT_TIMEOUT_S = 10.0
DEREGISTER_S = 5.0

log = structlog.get_logger()


class AgentState(Enum):
    """What a client knows of its own agent."""

    LIVE = "registered, as far as the last answer and this machine's clock tell"
    UNKNOWN = "silent for longer than its TTL: it may have been given up"
    LOST = "given up; what it held is let go"


class Presence:
    """One incarnation: ``id`` is new at each start, ``name`` stays. ``lost`` is set when it was given up."""

    def __init__(self, agent: Agent, heard_at: float, liveness: Liveness | None, executor: Executor) -> None:
        self.id = agent.id
        self.name = agent.name
        self.role = agent.role
        self.ttl = agent.ttl
        self.lost = anyio.Event()
        self._heard_at = heard_at
        self._liveness = liveness
        self._executor = executor

    @classmethod
    async def register(cls, registration: agents.Register, liveness: Liveness | None, executor: Executor) -> Presence:
        """Register.

        Raises: what ``agents.Register`` raises.
        """
        if liveness is not None:
            liveness.returned = anyio.Event()
            registration = replace(registration, process=liveness.process)
        asked_at = time.monotonic()
        agent = await executor.run(registration)
        return cls(agent, asked_at, liveness, executor)

    @property
    def state(self) -> AgentState:
        """What is known without asking."""
        if self.lost.is_set():
            return AgentState.LOST
        stale = time.monotonic() - self._heard_at >= self.ttl.total_seconds()
        return AgentState.UNKNOWN if stale else AgentState.LIVE

    async def alive(self) -> UUID:
        """Give the agent's id, and ask the database first if the last answer is older than the TTL.

        Raises: ``NotFound`` when it was given up; ``DatabaseUnavailable`` when that cannot be found out.
        """
        if self.state is AgentState.UNKNOWN:
            await self._heartbeat()
        if self.lost.is_set():
            raise NotFound(
                f'agent "{self.name}" ({self.id}) was given up, and what it held is let go',
                hint="Stop what it was doing, and connect again to register anew.",
                code="ZC202",
            )
        return self.id

    async def keep(self) -> None:
        """Send heartbeats until the agent is lost."""
        interval_s = self.ttl.total_seconds() / HEARTBEATS_A_TTL
        wait_s = interval_s
        while not self.lost.is_set():
            if self._liveness is None:
                await anyio.sleep(wait_s)
            else:
                with anyio.move_on_after(wait_s):
                    await self._liveness.returned.wait()
                self._liveness.returned = anyio.Event()
            try:
                await self._heartbeat()
            except CoordinatorError as error:
                log.warning("agent.heartbeat_failed", agent=self.name, error=str(error))
                wait_s = min(interval_s, RETRY_S) * random.uniform(0.5, 1.0)  # noqa: S311
            else:
                wait_s = interval_s

    async def deregister(self) -> None:
        """End the agent, if the database can be reached soon; else it is reaped, since its lock goes with its connection."""
        if self.lost.is_set():
            return
        with anyio.move_on_after(DEREGISTER_S, shield=True) as scope:
            try:
                await self._executor.run(agents.Deregister(agent=self.id))
            except NotFound:
                self._lose()
            except CoordinatorError as error:
                log.warning("agent.deregister_failed", agent=self.name, error=str(error))
        if scope.cancelled_caught:
            log.warning("agent.deregister_failed", agent=self.name, error="no answer in time")

    async def _heartbeat(self) -> None:
        """Say that the agent lives; on the direct connection, which no other call can keep busy."""
        session = None if self._liveness is None else self._liveness.session
        asked_at = time.monotonic()
        executor: Executor | Session = session if session is not None and session.connected else self._executor
        with anyio.move_on_after(HEARTBEAT_TIMEOUT_S):
            try:
                await executor.run(agents.Heartbeat(agent=self.id))
            except NotFound:
                self._lose()
            else:
                self._heard_at = asked_at
            return
        raise DatabaseUnavailable("no answer to a heartbeat", hint="It is tried again by itself.")

    def _lose(self) -> None:
        if not self.lost.is_set():
            log.error("agent.lost", agent=self.name, id=str(self.id), hint="It was given up; what it held is let go.")
            self.lost.set()
