"""A cache of token checks, and the end of streams and waits when a token ends.

Guarantees: a check is valid for at most ``BELIEVED_S``, and all checks are discarded when a revocation is notified, so
a revoked token opens nothing more. Its streams and waits end at once. If the notification is lost, both take
``BELIEVED_S``. No secret and no hash is logged or repeated in an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import structlog

from coordinator.api.believed import Believed
from coordinator.api.known_agents import KnownAgents
from coordinator.errors import CoordinatorError
from coordinator.model.catalogue import LIMITS
from coordinator.model.token import Token
from coordinator.operations.executor import Runner, Wake
from coordinator.operations.tokens import Authenticate, Live, Use

__all__ = ["CHECKS", "TOKEN_CHANNEL", "Tokens"]

TOKEN_CHANNEL = "coordinator.token"  # noqa: S105 - a channel's name
BELIEVED_S = 1.0
NOTED_S = 60.0  # a token's use is recorded at most this often
CHECKS = 2  # at once; more would only queue for their connections

log = structlog.get_logger()


class Tokens:
    """Checks tokens, and notifies watchers of a token when it ends."""

    def __init__(self, executor: Runner) -> None:
        self.agents = KnownAgents(executor)
        self._executor = executor
        self._known: Believed[str, Token] = Believed(BELIEVED_S)
        self._noted: Believed[int, bool] = Believed(NOTED_S)
        self._forgotten = 0
        self._checks = anyio.CapacityLimiter(CHECKS)
        self._watched: dict[int, set[Callable[[], None]]] = {}

    async def run_forever(self, wake: Wake) -> None:
        """Discard checks and end streams and waits of revoked tokens, until cancelled; ``wake`` listens to ``TOKEN_CHANNEL``."""
        while True:
            await wake.wait(BELIEVED_S)
            self._known.forget()
            self._forgotten += 1
            try:
                await self._end_dead()
            except CoordinatorError as error:
                log.warning("token.check_failed", error=error.message)

    async def check(self, hash: str) -> Token:
        """Find a token by its secret's hash.

        Raises: ``Unauthenticated``, ``DatabaseUnavailable``.
        """
        known = self._known.get(hash)
        if known is not None:
            return known
        asked_at, forgotten = time.monotonic(), self._forgotten
        async with self._checks:
            token = await self._executor.run(Authenticate(hash=hash))
        await self._note(token)
        if forgotten == self._forgotten:  # otherwise it may have been revoked after the response was sent
            self._known.keep(hash, token, asked_at)
        return token

    @contextmanager
    def watching(self, token: int, on_end: Callable[[], None]) -> Iterator[None]:
        """Call ``on_end`` if the token ends within the context."""
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
        for place in range(0, len(watched), LIMITS["list"]):
            page = watched[place : place + LIMITS["list"]]
            live = await self._executor.run(Live(tokens=page))
            for token in page:
                if token not in live:
                    watchers = tuple(self._watched.get(token, ()))
                    log.info("token.ended", token=token, streams=len(watchers))
                    for on_end in watchers:
                        on_end()

    async def _note(self, token: Token) -> None:
        if self._noted.get(token.id):
            return
        self._noted.keep(token.id, True)
        try:
            await self._executor.run(Use(token=token.id))
        except CoordinatorError as error:  # a standby cannot record it; the token is still valid
            log.warning("token.record_failed", token=token.id, error=error.message)
