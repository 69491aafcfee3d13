"""A cache of agents: the project of each, and the names that belong to agents."""

from __future__ import annotations

from uuid import UUID

from coordinator.api.believed import Believed
from coordinator.operations.agents import Named, ProjectOf
from coordinator.operations.executor import Runner

__all__ = ["KnownAgents"]

NAME_BELIEVED_S = 60.0


class KnownAgents:
    """Looks up agents and caches them: a project permanently, since it never changes; a name for ``NAME_BELIEVED_S``."""

    def __init__(self, executor: Runner) -> None:
        self._executor = executor
        self._projects: Believed[UUID, str] = Believed()
        self._names: Believed[tuple[str, str], bool] = Believed(NAME_BELIEVED_S)

    async def project_of(self, agent: UUID) -> str:
        """Return the project of an agent.

        Raises: ``NotFound``, ``DatabaseUnavailable``.
        """
        return self._projects.get(agent) or self._projects.keep(agent, await self._executor.run(ProjectOf(agent=agent)))

    async def has(self, project: str, name: str) -> bool:
        """Return whether a project has a registered agent of this name, which is not reserved.

        Raises: ``NotFound`` where there is no such project, or the agent has ended; ``DatabaseUnavailable``.
        """
        if self._names.get((project, name)):
            return True
        return await self._executor.run(Named(project=project, name=name)) and self._names.keep((project, name), True)
