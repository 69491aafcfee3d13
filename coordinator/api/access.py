"""Who asks, and what they may do: every request, replay and stream is checked here and nowhere else.

A caller presents a token (``Authorization: Bearer coo_…``); what its role may do is ``operations.rights``, and a token of one
project opens no other. Where access is open, which only loopback can be, everybody is an administrator.

Guarantees: a check is believed for ``BELIEVED_S`` at the most, and all checks are forgotten when a revocation is notified,
so a revoked token opens nothing more; streams and long-polls that it opened end at once. Should the notification be lost,
that takes ``BELIEVED_S``. Neither a secret nor its hash is ever logged or repeated in an error.

What a token does is done in its name. An agent's token may speak as an agent that is registered in the project, too, and as
nobody else: neither as a manager, nor as a role of the database. A manager's may name whom it likes but ``LOOPS``.

On failure: without the database a token that was not just checked is answered with 503, never let in. What it does
deliberately not do: take tokens from the address or from cookies, where they end up in logs and are sent by other sites; a
browser's ``EventSource`` can send nothing else, and has ``fetch`` in its place (``examples/follow.js``).
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

import anyio
import msgspec
import structlog
from litestar.types import Scope

from coordinator.config import Config
from coordinator.errors import ConfigurationError, CoordinatorError, PermissionDenied, Unauthenticated
from coordinator.model.operation import Operation
from coordinator.model.token import SECRET, Role, Token, digest
from coordinator.operations.agents import Named, Project, Register
from coordinator.operations.executor import Executor, Wake
from coordinator.operations.rights import ANYWHERE, NARROWED, RIGHTS
from coordinator.operations.tokens import Authenticate, Live, Use

__all__ = ["TOKEN_CHANNEL", "Access", "Caller", "is_loopback", "is_open"]

TOKEN_CHANNEL = "coordinator.token"  # noqa: S105 - a channel's name
BELIEVED_S = 1.0
NOTED_S = 60.0  # the use of a token is noted so often
REMEMBERED = 10_000  # tokens, and projects of agents
CHECKS = 4  # at once: a flood of false tokens shall not take the pool
LIVE_PAGE = 1000
LOOPS = "coordinator"  # who reaps and expires, in events

log = structlog.get_logger()
R = TypeVar("R")
T = TypeVar("T", bound=Operation[object])


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_open(config: Config) -> bool:
    """Tell whether HTTP asks for no tokens: where it is said so, or by itself for a private database on loopback.

    Raises: ``ConfigurationError`` where anybody could reach what is open.
    """
    loopback = is_loopback(config.host)
    if config.access == "auto":
        return loopback and config.database_url is None
    if config.access == "open" and not loopback:
        raise ConfigurationError(
            f"with open access, {config.host} would let in everybody who can reach it",
            hint='Set COORDINATOR_ACCESS=tokens and make one with "coordinator token create", or listen on 127.0.0.1.',
        )
    return config.access == "open"


class _Known(msgspec.Struct):
    """A token as it was found, and when."""

    token: Token
    checked_at: float


class Access:
    """Tells callers apart; made once, by the daemon. ``executor`` none: access is open."""

    def __init__(self, executor: Executor | None) -> None:
        self._executor = executor
        self._known: dict[str, _Known] = {}
        self._noted: dict[int, float] = {}
        self._forgotten = 0
        self._checks = anyio.CapacityLimiter(CHECKS)
        self._projects: dict[UUID, str] = {}
        self._speakers: dict[tuple[str, str], float] = {}
        self._watched: dict[int, set[Callable[[], None]]] = {}

    async def run_forever(self, wake: Wake) -> None:
        """Forget checks and end streams when tokens are revoked, until cancelled; ``wake`` is for ``TOKEN_CHANNEL``."""
        while True:
            await wake.wait(BELIEVED_S)
            self._known.clear()
            self._forgotten += 1
            try:
                await self._end_dead()
            except CoordinatorError as error:
                log.warning("access.failed", error=error.message)

    async def identify(self, scope: Scope) -> Caller:
        """Tell who asks.

        Raises: ``Unauthenticated``; ``DatabaseUnavailable`` where a token cannot be checked.
        """
        if self._executor is None:
            return Caller(self, None, None)
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            raise Unauthenticated(
                "there is no token",
                hint='Send the header "Authorization: Bearer coo_…" (clients: COORDINATOR_TOKEN); see "coordinator token create".',
            )
        scheme, _, secret = given[0].decode("latin-1").partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer" or not SECRET.fullmatch(secret.strip()):
            raise Unauthenticated(
                "that is no token", hint="Write it as Authorization: Bearer coo_…, once.", code="ZC501"
            )
        found = digest(secret.strip())
        return Caller(self, await self.check(found), found)

    async def check(self, hash: str) -> Token:
        """Find a token by its hash.

        Raises: ``Unauthenticated``, ``DatabaseUnavailable``.
        """
        assert self._executor is not None, "only tokens have hashes"  # noqa: S101
        now = time.monotonic()
        known = self._known.get(hash)
        if known is not None and now - known.checked_at < BELIEVED_S:
            return known.token
        forgotten = self._forgotten
        async with self._checks:
            token = await self._executor.run(Authenticate(hash=hash))
        await self._note(token)
        # What was revoked while the answer was on its way must not be remembered.
        if forgotten == self._forgotten:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[hash] = _Known(token, now)
        return token

    async def project_of(self, agent: UUID) -> str:
        """Tell which project an agent is of.

        Raises: ``NotFound``, ``DatabaseUnavailable``.
        """
        assert self._executor is not None, "only a token is of one project"  # noqa: S101
        project = self._projects.get(agent)
        if project is None:
            project = await self._executor.run(Project(agent=agent))
            if len(self._projects) >= REMEMBERED:
                self._projects.clear()
            self._projects[agent] = project
        return project

    async def is_agent(self, project: str, name: str) -> bool:
        """Tell whether an agent of this name is registered in a project; believed for ``NOTED_S`` where it is.

        Raises: ``NotFound``, ``DatabaseUnavailable``.
        """
        assert self._executor is not None, "only a token speaks as an agent"  # noqa: S101
        now = time.monotonic()
        if now - self._speakers.get((project, name), -NOTED_S) < NOTED_S:
            return True
        if not await self._executor.run(Named(project=project, name=name)):
            return False
        if len(self._speakers) >= REMEMBERED:
            self._speakers.clear()
        self._speakers[project, name] = now
        return True

    @contextmanager
    def watching(self, token: int, on_end: Callable[[], None]) -> Iterator[None]:
        """Call ``on_end`` when the token ends, as long as the context lasts."""
        watchers = self._watched.setdefault(token, set())
        watchers.add(on_end)
        try:
            yield
        finally:
            watchers.discard(on_end)
            if not watchers and self._watched.get(token) is watchers:
                del self._watched[token]

    async def _end_dead(self) -> None:
        watched = list(self._watched)
        for place in range(0, len(watched), LIVE_PAGE):
            page = watched[place : place + LIVE_PAGE]
            assert self._executor is not None, "only tokens are watched"  # noqa: S101
            live: list[int] = await self._executor.run(Live(tokens=page))
            for token in page:
                if token not in live:
                    log.info("access.ended", token=token, streams=len(self._watched.get(token, ())))
                    for on_end in tuple(self._watched.get(token, ())):
                        on_end()

    async def _note(self, token: Token) -> None:
        assert self._executor is not None, "only tokens are noted"  # noqa: S101
        now = time.monotonic()
        if now - self._noted.get(token.id, -NOTED_S) < NOTED_S:
            return
        if len(self._noted) >= REMEMBERED:
            self._noted.clear()
        self._noted[token.id] = now
        try:
            await self._executor.run(Use(token=token.id))
        except CoordinatorError as error:  # a standby cannot note it; the token is as good
            log.warning("access.not_noted", token=token.id, error=error.message)


class Caller:
    """Who asks. Without a token: where access is open, an administrator."""

    def __init__(self, access: Access, token: Token | None, hash: str | None) -> None:
        self._access = access
        self._token = token
        self._hash = hash

    @property
    def name(self) -> str | None:
        """The token's name: who does it, where no other is named."""
        return None if self._token is None else self._token.name

    def check(self, function: str, projects: Iterable[str] | None) -> None:
        """Check that the caller may use a function on these projects; None: on all that there are.

        Raises: ``PermissionDenied``.
        """
        if self._token is None:
            return
        needed = RIGHTS.get(function)
        if needed is None or Role[self._token.role] < needed:
            raise PermissionDenied(
                f'token "{self.name}" has the role {self._token.role}, which may not do that',
                hint=f"It takes a token of the role {needed.name}." if needed else "Nobody may.",
            )
        own = self._token.project
        if own is None or function in ANYWHERE or function in NARROWED:
            return
        if projects is None:
            raise PermissionDenied(
                f'token "{self.name}" is for project "{own}" alone, and this concerns all projects',
                hint=f'Name the project "{own}", or take a token for all projects.',
            )
        for project in projects:
            if project != own:
                raise PermissionDenied(
                    f'token "{self.name}" may not use project "{project[:200]}"',
                    hint=f'It is for project "{own}" alone.',
                )

    def visible(self, function: str, rows: list[R]) -> list[R]:
        """Give those rows of an answer that the caller may see."""
        project = NARROWED.get(function)
        own = None if self._token is None else self._token.project
        if project is None or own is None:
            return rows
        return [row for row in rows if getattr(row, project) == own]

    async def permit(self, operation: T) -> T:
        """Check that the caller may run an operation, as whom it says; the answer is the one to run, with an actor.

        Raises: ``PermissionDenied``; ``NotFound`` where the agent is gone that it is about.
        """
        if self._token is None:
            return operation
        self.check(operation.function, await self._projects(operation))
        await self._check_speaker(operation)
        if getattr(operation, "actor", self.name) is None:
            return msgspec.structs.replace(operation, actor=self.name)
        return operation

    async def confirm(self) -> None:
        """Check that the token is still good: after a wait.

        Raises: ``Unauthenticated``, ``DatabaseUnavailable``.
        """
        if self._hash is not None:
            await self._access.check(self._hash)

    @contextmanager
    def watching(self, on_end: Callable[[], None]) -> Iterator[None]:
        """Call ``on_end`` when the caller's token is revoked or expires, as long as the context lasts."""
        if self._token is None:
            yield
            return
        with self._access.watching(self._token.id, on_end):
            yield

    async def _check_speaker(self, operation: Operation[object]) -> None:
        """Check that the caller may speak as the actor, or as the agent, that a write names."""
        assert self._token is not None, "asked only of tokens"  # noqa: S101
        if operation.reads:
            return
        if isinstance(operation, Register):
            names, known = {operation.name}, True  # a name becomes an agent's by this
        else:
            given = (getattr(operation, "actor", None), getattr(operation, "agent", None))
            names = {name for name in given if isinstance(name, str)} - {self._token.name}
            known = Role[self._token.role] >= Role.manager
        project: str | None = getattr(operation, "project", None)
        for name in names:
            if name == LOOPS or not (known or (project and await self._access.is_agent(project, name))):
                raise PermissionDenied(
                    f'token "{self.name}" may not speak as "{name[:200]}"',
                    hint=f'Leave it away, to do it as "{self.name}"; or register an agent of that name in the project.'
                    if name != LOOPS
                    else "That is who cleans up. Take another name.",
                )

    async def _projects(self, operation: Operation[object]) -> tuple[str, ...] | None:
        assert self._token is not None, "asked only of tokens"  # noqa: S101
        if self._token.project is None or getattr(operation, "everywhere", False):
            return None
        project: str | None = getattr(operation, "project", None)
        agent: UUID | None = getattr(operation, "agent", None)
        if project is None and isinstance(agent, UUID):
            self.check(operation.function, ())  # the role first: who may not do it learns nothing of agents
            project = await self._access.project_of(agent)
        return None if project is None else (project,)
