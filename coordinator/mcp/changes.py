"""Changes while a request or session listens, from the process's only reader of the log.

Guarantees: it yields each wanted URI that was changed by an event committed after ``listening`` was entered, and all
wanted URIs if events are missing. A change that has not been taken yet is stored once per URI, so a slow client needs
no more memory than a fast one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import anyio

from coordinator.api.filter import Filter
from coordinator.api.gateway import Gateway
from coordinator.api.principal import Principal
from coordinator.errors import Unauthenticated
from coordinator.mcp import resources
from coordinator.model.event import Event

__all__ = ["NewestChange", "ResourceChanges"]


class NewestChange:
    """The URIs that an event changed. It caches the newest event, which all listeners of the project ask for."""

    def __init__(self) -> None:
        self._event: Event | None = None
        self._uris: set[str] = set()

    def uris(self, event: Event) -> set[str]:
        """Return the URIs."""
        if event is not self._event:
            self._event, self._uris = event, resources.changed_by(event)
        return self._uris


class ResourceChanges:
    """Changes of the ``wanted`` URIs, which may grow meanwhile, for a principal."""

    def __init__(
        self, gateway: Gateway, newest: NewestChange, principal: Principal, project: str, wanted: Collection[str]
    ) -> None:
        self._gateway = gateway
        self._newest = newest
        self._principal = principal
        self._project = project
        self._wanted = wanted
        self._changed: dict[str, None] = {}
        self._revoked = False
        self._news = anyio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[AsyncIterator[str]]:
        """Yield what yields the URIs, until the process closes.

        Raises: ``Overloaded``, ``DatabaseUnavailable``; while it yields, ``Unauthenticated`` if the token ends.
        """
        project = Filter((self._project,))
        async with self._gateway.connection():
            with self._gateway.tap(project, self._take), self._principal.watching(self._revoke):
                yield self._each()

    async def _each(self) -> AsyncIterator[str]:
        while not self._gateway.closing:
            if self._revoked:
                raise Unauthenticated("the token of this request has ended", hint="Use a valid token.")
            if self._changed:
                uri = next(iter(self._changed))
                del self._changed[uri]
                yield uri
                continue
            self._news = anyio.Event()
            await self._news.wait()

    def _take(self, event: Event | None) -> None:
        changed = self._newest.uris(event) if event is not None else self._wanted
        self._changed |= dict.fromkeys(sorted(uri for uri in changed if uri in self._wanted))
        self._news.set()

    def _revoke(self) -> None:
        self._revoked = True
        self._news.set()
