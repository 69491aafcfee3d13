"""Features: lists of the planned features of a project, each with a status, and whether it passes."""

from __future__ import annotations

from coordinator.client.documents import Documents, Expected
from coordinator.model.document import Document, DocumentHeader
from coordinator.model.operation import Json, JsonText

__all__ = ["Features"]


class Features:
    """The lists of features of the client's project: documents of kind ``features``.

    A document is a list of features, or an object with that list as ``features``. A feature is an object with an ``id``
    and, optionally, ``status`` and ``passes``; other keys are yours.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def save(self, key: str, value: Json | JsonText, *, expect: Expected = None) -> DocumentHeader:
        """Save a whole list. Its text (``JsonText``) is returned exactly, until a feature is changed.

        Raises: as ``documents.put``.
        """
        return await self._documents.put("features", key, value, expect=expect)

    async def load(self, key: str) -> Document:
        """Return a list.

        Raises: ``NotFound``.
        """
        return await self._documents.get("features", key)

    async def set(
        self, key: str, item: str | int, *, status: str | None = None, passes: bool | None = None
    ) -> DocumentHeader:
        """Set the status of a feature, and whether it passes, in one call; None keeps the current value.

        Raises: ``NotFound`` without such a list or feature.
        """
        given: dict[str, Json] = {"status": status, "passes": passes}
        change = {name: value for name, value in given.items() if value is not None}
        return await self._documents.item("features", key, item, change)
