"""Sessions: conversations and runs of work."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.model.operation import Json
from coordinator.model.session import Session
from coordinator.operations import sessions

__all__ = ["Sessions"]


class Sessions(Verbs):
    """The sessions of the client's project."""

    async def create(
        self,
        session: str | None = None,
        *,
        username: str | None = None,
        title: str = "",
        mission: str = "",
        status: str = "active",
        context: Mapping[str, Json] | None = None,
    ) -> Session:
        """Create a session under the key ``session``, by default a new UUID. The first message under a key does the same.

        Raises: ``Conflict`` if the key is taken; ``NotFound`` if there is no such user.
        """
        return await self._caller.run(
            sessions.Create(
                session=session,
                username=username,
                title=title,
                mission=mission,
                status=status,
                context=dict(context or {}),
                **await self._caller.author(),
            )
        )

    async def show(self, session: str) -> Session:
        """Return a session.

        Raises: ``NotFound``.
        """
        return await self._caller.run(sessions.Show(project=self._caller.project, session=session))

    def list(
        self,
        *,
        username: str | None = None,
        status: str | None = None,
        after: str | None = None,
        limit: int = PAGE,
    ) -> Listing[Session]:
        """List the sessions, optionally of one user or with one status, the most recently used first.

        Raises: ``NotFound`` if there is no such user.
        """
        operation = sessions.List(project=self._caller.project, username=username, status=status, limit=limit)
        return Listing(self._caller, operation, after)

    async def set(
        self,
        session: str,
        *,
        username: str | None = None,
        title: str | None = None,
        mission: str | None = None,
        status: str | None = None,
        context: Mapping[str, Json] | None = None,
    ) -> Session:
        """Change parts of a session; omitted fields keep their values. Another status makes an archived session usable again.

        Raises: ``NotFound`` if there is no such session or user.
        """
        return await self._caller.run(
            sessions.Set(
                session=session,
                username=username,
                title=title,
                mission=mission,
                status=status,
                context=None if context is None else dict(context),
                **await self._caller.author(),
            )
        )

    async def archive(self, session: str) -> Session:
        """Archive a session: it stays readable, but nothing can be appended. Archiving it again changes nothing.

        Raises: ``NotFound``.
        """
        return await self._caller.run(sessions.Archive(session=session, **await self._caller.author()))

    async def fork(
        self,
        session: str,
        seq: int | None = None,
        *,
        kind: str = "message",
        copy: str | None = None,
        title: str | None = None,
    ) -> Session:
        """Copy a session as it was when the entry ``seq`` of its log of ``kind`` was appended; by default, as it is now.

        The copy has the logs up to then, with their numbers, and the documents, with their versions. ``copy`` is its
        key, by default a new UUID. Later changes to one do not affect the other.

        Raises: ``Conflict`` if the entry does not exist (any more) (``ZC335``), or if the key is taken; ``NotFound``.
        """
        return await self._caller.run(
            sessions.Fork(session=session, seq=seq, kind=kind, copy=copy, title=title, **await self._caller.author())
        )

    async def delete(self, session: str) -> None:
        """Delete a session with its logs, documents and artifacts, in several steps if it is large.

        Raises: ``NotFound``.
        """
        actor = await self._caller.actor()
        while not await self._caller.run(sessions.Delete(project=self._caller.project, session=session, actor=actor)):
            pass
