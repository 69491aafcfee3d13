"""Todo lists: documents with items, each of which can be changed in one call."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.client.documents import Documents, Expected
from coordinator.model.document import Document, DocumentHeader
from coordinator.model.operation import Json, JsonText

__all__ = ["Todos"]


class Todos:
    """The todo lists of the client's project: documents of kind ``todo``.

    A todo list is a list of items, or an object with that list as ``items``. An item is an object with an ``id`` and,
    optionally, a ``status``; other keys are yours.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def save(
        self, key: str, value: Json | JsonText, *, expect: Expected = None, session: str | None = None
    ) -> DocumentHeader:
        """Save a whole list.

        Raises: as ``documents.put``.
        """
        return await self._documents.put("todo", key, value, expect=expect, session=session)

    async def load(self, key: str) -> Document:
        """Return a list.

        Raises: ``NotFound``.
        """
        return await self._documents.get("todo", key)

    async def item(self, key: str, item: str | int, patch: Mapping[str, Json] | JsonText) -> DocumentHeader:
        """Change one item, found by its id: ``await client.todos.item("release", 3, {"status": "COMPLETED"})``.

        Concurrent calls lose no updates, and callers need not read first.

        Raises: ``NotFound`` without such a list or item.
        """
        return await self._documents.item("todo", key, item, patch)
