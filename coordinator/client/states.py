"""States: the state of each session, a document that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from coordinator.client.caller import Duration
from coordinator.client.documents import Documents, Expected
from coordinator.model.document import Document, DocumentHeader
from coordinator.model.operation import Json, JsonText

__all__ = ["States"]


class States:
    """The states of the sessions of the client's project: documents of kind ``state``, whose key is that of the session."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def save(
        self,
        session: str,
        value: Mapping[str, Json] | JsonText,
        *,
        expect: Expected = None,
        ttl: Duration | None = None,
    ) -> DocumentHeader:
        """Save the state of a session, an object. The first state creates the session.

        Raises: as ``documents.put``.
        """
        plain = dict(value) if isinstance(value, Mapping) else value  # the database refuses others
        return await self._documents.put("state", session, plain, expect=expect, ttl=ttl)

    async def load(
        self,
        session: str,
        *,
        version: int | None = None,
        at: datetime | None = None,
        path: Sequence[str] | None = None,
    ) -> Document:
        """Return the state of a session, as ``documents.get`` does.

        Raises: ``NotFound``.
        """
        return await self._documents.get("state", session, version=version, at=at, path=path)
