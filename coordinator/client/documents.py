"""Documents: values under a kind and a key, in versions numbered 1, 2, 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from coordinator.client.caller import Duration, Verbs, as_duration
from coordinator.client.listing import PAGE, Listing
from coordinator.model.document import Document, DocumentHeader, DocumentVersion
from coordinator.model.json import text_of, value_of
from coordinator.model.operation import Json, JsonText
from coordinator.operations import documents

__all__ = ["Documents", "Expected"]

Expected = int | Document | DocumentHeader | None


class Documents(Verbs):
    """The documents of the client's project.

    ``expect`` is the required version: the document as it was read, or only its version number; 0: it must be absent. A document that was read also
    names its epoch, so it never matches what a restored database wrote under the same number.
    """

    async def put(
        self,
        kind: str,
        key: str,
        value: Json | JsonText,
        *,
        expect: Expected = None,
        epoch: str | None = None,
        ttl: Duration | None = None,
        session: str | None = None,
    ) -> DocumentHeader:
        """Write a version of a document. It never expires, unless ``ttl`` is given.

        ``value`` is any JSON value, or its text (``JsonText``), which is stored unchanged.

        Raises: ``Conflict`` with the current version and epoch in ``detail``; ``InvalidArgument`` for a value that does
        not have the shape of the kind.
        """
        return await self._caller.run(
            documents.Put(
                kind=kind,
                key=key,
                value=text_of(value),
                **_expected(expect, epoch),
                ttl=None if ttl is None else as_duration(ttl),
                session=session,
                **await self._caller.author(),
            )
        )

    async def get(
        self,
        kind: str,
        key: str,
        *,
        version: int | None = None,
        at: datetime | None = None,
        path: Sequence[str] | None = None,
    ) -> Document:
        """Return a document: ``value`` is its value, ``text`` the exact text of the value.

        It is the latest version, a version by its number, or the version at the instant ``at``. ``path`` leads to a
        part of it.

        Raises: ``NotFound`` if it is absent, if the version is no longer kept, or if the path leads to nothing.
        """
        return await self._caller.run(
            documents.Get(
                project=self._caller.project,
                kind=kind,
                key=key,
                version=version,
                at=at,
                path=None if path is None else list(map(str, path)),
            )
        )

    async def patch(
        self,
        kind: str,
        key: str,
        patch: Mapping[str, Json] | JsonText,
        *,
        expect: Expected = None,
        epoch: str | None = None,
    ) -> DocumentHeader:
        """Merge an object into a document (RFC 7396): None deletes a key, objects are merged, any other value replaces the old one.

        Concurrent calls lose no updates, and callers need not read first.

        Raises: ``NotFound``; ``Conflict``; ``InvalidArgument`` if the document is not an object.
        """
        return await self._caller.run(
            documents.Patch(
                kind=kind, key=key, patch=text_of(patch), **_expected(expect, epoch), **await self._caller.author()
            )
        )

    async def item(
        self,
        kind: str,
        key: str,
        item: str | int,
        patch: Mapping[str, Json] | JsonText,
        *,
        path: Sequence[str] | None = None,
        field: str = "id",
        expect: Expected = None,
        epoch: str | None = None,
    ) -> DocumentHeader:
        """Merge an object into one item of a list, found by its id, in one call.

        Concurrent calls lose no updates, and callers need not read first. ``path`` leads to the list; the default is
        the place where todo lists and features have their list, or the document itself. ``field`` is the key of the
        ids.

        Raises: ``NotFound`` without such an item; ``Conflict`` if several have the id.
        """
        return await self._caller.run(
            documents.Item(
                kind=kind,
                key=key,
                item=str(item),
                patch=text_of(patch),
                path=None if path is None else list(map(str, path)),
                field=field,
                **_expected(expect, epoch),
                **await self._caller.author(),
            )
        )

    async def delete(self, kind: str, key: str, *, expect: Expected = None, epoch: str | None = None) -> DocumentHeader:
        """Delete a document. Its versions are kept for 7 days; until then, ``restore`` recovers it.

        Raises: ``NotFound``, ``Conflict``.
        """
        return await self._caller.run(
            documents.Delete(kind=kind, key=key, **_expected(expect, epoch), **await self._caller.author())
        )

    async def keep(self, kind: str, key: str, *, kept: bool = True) -> bool:
        """Keep a document, even a deleted one, so that retention does not delete it; return whether that changed anything.

        Raises: ``NotFound``.
        """
        return await self._caller.run(documents.Keep(kind=kind, key=key, kept=kept, **await self._caller.author()))

    async def restore(
        self,
        kind: str,
        key: str,
        *,
        version: int | None = None,
        expect: Expected = None,
        epoch: str | None = None,
        ttl: Duration | None = None,
    ) -> DocumentHeader:
        """Write the value of an earlier version again. The default is the latest value, even of a deleted or expired document.

        Raises: ``NotFound`` if there is no such version, or it is no longer kept; ``Conflict``.
        """
        return await self._caller.run(
            documents.Restore(
                kind=kind,
                key=key,
                version=version,
                **_expected(expect, epoch),
                ttl=None if ttl is None else as_duration(ttl),
                **await self._caller.author(),
            )
        )

    def list(
        self, kind: str | None = None, *, prefix: str = "", after: str | None = None, limit: int = PAGE
    ) -> Listing[DocumentHeader]:
        """List documents, or those of a kind, whose keys begin with ``prefix``, without their values."""
        operation = documents.List(project=self._caller.project, kind=kind, prefix=prefix, limit=limit)
        return Listing(self._caller, operation, after)

    def history(self, kind: str, key: str, *, after: str | None = None, limit: int = PAGE) -> Listing[DocumentVersion]:
        """List the retained versions of a document, newest first, even if it is deleted or expired.

        Raises, when awaited and at each step: ``NotFound``.
        """
        operation = documents.History(project=self._caller.project, kind=kind, key=key, limit=limit)
        return Listing(self._caller, operation, after)

    async def diff(self, kind: str, key: str, version: int, other: int | None = None) -> Any:
        """Return the JSON Patch (RFC 6902) from one version to another, by default the latest: a list of dicts.

        Raises: ``NotFound`` if there is no such version, or it is no longer kept.
        """
        return value_of(
            await self._caller.run(
                documents.Diff(project=self._caller.project, kind=kind, key=key, version=version, other=other)
            )
        )


def _expected(expect: Expected, epoch: str | None) -> dict[str, Any]:
    if expect is None or isinstance(expect, int):
        return {"expect": expect, "epoch": epoch}
    return {"expect": expect.version, "epoch": expect.epoch}
