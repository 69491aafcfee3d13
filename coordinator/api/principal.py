"""Principals: who sent a request, and what they may do. Every call and every stream is checked here, and nowhere else.

A principal needs the role of the operation. A token for one project gives no access to another one, however a call
refers to it: the operation declares what it concerns (``Operation.scope``).

Actions of a token are recorded in its name. An agent's token may also act as an agent that is registered in the
project, and as nobody else: neither as a manager nor as a database role, whose names no agent of such a token can take.
A manager's token may name anyone but ``LOOPS``. The operation declares which fields name a speaker
(``Operation.speakers``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from coordinator.api.tokens import Tokens
from coordinator.errors import PermissionDenied
from coordinator.model.call_origin import CallOrigin, current
from coordinator.model.operation import Operation, Scope
from coordinator.model.token import Role, Token
from coordinator.telemetry import cause

__all__ = ["Principal"]

LOOPS = "coordinator"  # the actor of reaping and expiry in events
_BEYOND_PROJECTS = (Scope.NONE, Scope.OWN_ROWS)  # a caller that is restricted to a project may use these

T = TypeVar("T", bound=Operation[Any])


class Principal:
    """The sender of a request, by its token. If access is open, there is no token, and everyone is an administrator without a name."""

    def __init__(self, token: Token | None = None, hash: str = "", tokens: Tokens | None = None) -> None:
        self._token = token
        self._role = Role.admin if token is None else Role[token.role]
        self._project = None if token is None else token.project
        self._hash = hash
        self._tokens = tokens

    @property
    def role(self) -> Role:
        """What it may do."""
        return self._role

    @property
    def project(self) -> str | None:
        """The only project that it may use, if it is restricted."""
        return self._project

    @property
    def caller(self) -> str:
        """The owner of the idempotency keys; empty if access is open."""
        return "" if self._token is None else str(self._token.id)

    def origin(self, address: str | None) -> CallOrigin:
        """Return the origin of its calls, sent from ``address``."""
        token = self._token
        return msgspec.structs.replace(current(), address=address, token=token and token.id, name=token and token.name)

    def check_role(self, operation: type[Operation[Any]]) -> None:
        """Refuse a role that does not suffice for an operation.

        Raises: ``PermissionDenied``.
        """
        needed = operation.least_role()
        if needed is None or self._role < needed:
            raise PermissionDenied(
                f"{self} has the role {self._role.name}, which may not do this",
                hint=f"Use a token with the role {needed.name}." if needed else "No role may.",
            )

    def check_projects(self, projects: Iterable[str] | None) -> None:
        """Refuse a token that is for another project; None means all projects.

        Raises: ``PermissionDenied``.
        """
        if self._project is None:
            return
        if projects is None:
            raise PermissionDenied(
                f'{self} is for project "{self._project}" only, and this concerns all projects',
                hint=f'Name the project "{self._project}", or use a token for all projects.',
            )
        for project in projects:
            if project != self._project:
                raise PermissionDenied(
                    f'{self} may not use project "{project[:200]}"', hint=f'It is for project "{self._project}" only.'
                )

    async def permit(self, operation: T) -> T:
        """Return the operation to run: with the token's name in it, where it names no speaker.

        So is each of its parts.

        Raises: ``PermissionDenied``; ``NotFound`` where it is about an agent that is gone; ``InvalidArgument`` for a malformed part.
        """
        self.check_role(type(operation))
        parts = operation.parts()
        if parts:
            operation = operation.with_parts([await self.permit(part) for part in parts])
        cause.about(operation)
        if self._token is None or self._tokens is None:
            return operation
        about = operation.about()
        if self._project is not None and operation.scope not in _BEYOND_PROJECTS:
            project = await self._tokens.agents.project_of(about) if isinstance(about, UUID) else about
            self.check_projects(None if project is None else (project,))
        operation = operation.spoken_by(self._token.name)
        cause.about(operation)
        known = self._role >= Role.manager
        for name in operation.speaker_names():
            if name == LOOPS:
                raise PermissionDenied(f'{self} may not speak as "{LOOPS}"', hint="Use another name.")
            if known or name == self._token.name:
                continue
            if operation.registers:  # the database looks, under the lock that names have
                operation = msgspec.structs.replace(operation, unreserved=True)
                continue
            if not (isinstance(about, str) and await self._tokens.agents.has(about, name)):
                raise PermissionDenied(
                    f'{self} may not speak as "{name[:200]}"',
                    hint=f'Omit it to speak as "{self._token.name}", or register an agent of that name in the project.',
                )
        return operation

    def confine(self, operation: Operation[Any], rows: list[Any]) -> list[Any]:
        """Return the rows of a result that the principal may see."""
        if self._project is None or operation.scope is not Scope.OWN_ROWS:
            return rows
        return operation.confine(rows, self._project)

    async def confirm(self) -> None:
        """Check the token again, after a wait.

        Raises: ``Unauthenticated``, ``DatabaseUnavailable``.
        """
        if self._tokens is not None:
            await self._tokens.check(self._hash)

    def watching(self, on_end: Callable[[], None]) -> AbstractContextManager[None]:
        """Call ``on_end`` if the token is revoked or expires within the context."""
        if self._token is None or self._tokens is None:
            return nullcontext()
        return self._tokens.watching(self._token.id, on_end)

    def __str__(self) -> str:
        return f'token "{self._token.name}"' if self._token else "open access"
