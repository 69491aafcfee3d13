"""Documents: values under a kind and a key, in versions numbered 1, 2, 3."""

from __future__ import annotations

from datetime import datetime, timedelta

from coordinator.model.document import Document, DocumentHeader, DocumentVersion
from coordinator.model.operation import InProject, JsonText, Operation

__all__ = ["Assert", "Delete", "Diff", "Get", "History", "Item", "Keep", "List", "Patch", "Prune", "Put", "Restore"]


class Put(InProject[DocumentHeader], frozen=True, kw_only=True):
    """Write a version of a document. It never expires, unless ``ttl`` is given: 1 second to 366 days.

    ``expect`` is the version that it must have now, and ``epoch`` the epoch of that version; 0 if it must be absent. A
    document with a ``session`` belongs to it, and ends with it.

    Raises: ``Conflict`` with the current version and epoch in ``detail``: read it and decide again. ``InvalidArgument``
    for a value that does not have the shape of the kind.
    """

    function = "document_put"
    speakers = ("actor",)
    conditional = True
    versioned = True
    max_bytes = "document_body"

    kind: str
    key: str
    value: JsonText
    expect: int | None = None
    epoch: str | None = None
    ttl: timedelta | None = None
    session: str | None = None
    actor: str | None = None


class Get(InProject[Document], frozen=True, kw_only=True):
    """Read a document: the latest version, a version by its number, or the version at the instant ``at``.

    ``path`` leads to a part of it: keys, and indexes of lists from 0.

    Raises: ``NotFound`` if it is absent (``ZC217``), if the version is no longer kept (``ZC218``), or if the path leads
    to nothing (``ZC219``).
    """

    function = "document_get"
    reads = True
    versioned = True

    kind: str
    key: str
    version: int | None = None
    at: datetime | None = None
    path: list[str] | None = None


class Patch(InProject[DocumentHeader], frozen=True, kw_only=True):
    """Merge an object into a document (RFC 7396): null deletes a key, objects are merged, any other value replaces the old one.

    Concurrent calls lose no updates, and callers need not read first.

    Raises: ``NotFound``; ``Conflict`` as in ``Put``; ``InvalidArgument`` if the document is not an object.
    """

    function = "document_patch"
    speakers = ("actor",)
    conditional = True
    versioned = True
    max_bytes = "document_body"
    examples = {"patch": {"status": "COMPLETED"}}

    kind: str
    key: str
    patch: JsonText
    expect: int | None = None
    epoch: str | None = None
    actor: str | None = None


class Item(InProject[DocumentHeader], frozen=True, kw_only=True):
    """Merge an object into one item of a list in a document, found by its id, in one call.

    Concurrent calls lose no updates, and callers need not read first. ``path`` leads to the list; the default is the
    place where todo lists and features have their list, or the document itself. ``field`` is the key of the ids; the id
    3 matches ``3`` and ``"3"``.

    Raises: ``NotFound`` without such an item (``ZC219``); ``Conflict`` if several have the id (``ZC333``), and as in
    ``Put``.
    """

    function = "document_item"
    speakers = ("actor",)
    conditional = True
    versioned = True
    max_bytes = "document_body"
    examples = {"kind": "todo", "key": "release", "item": "3", "patch": {"status": "COMPLETED"}}

    kind: str
    key: str
    item: str
    patch: JsonText
    path: list[str] | None = None
    field: str = "id"
    expect: int | None = None
    epoch: str | None = None
    actor: str | None = None


class Delete(InProject[DocumentHeader], frozen=True, kw_only=True):
    """Delete a document. Its versions are kept for 7 days; until then, ``Restore`` recovers it.

    Raises: ``NotFound``; ``Conflict`` as in ``Put``.
    """

    function = "document_delete"
    speakers = ("actor",)
    conditional = True
    versioned = True

    kind: str
    key: str
    expect: int | None = None
    epoch: str | None = None
    actor: str | None = None


class Keep(InProject[bool], frozen=True, kw_only=True):
    """Keep a document, even a deleted one, so that retention does not delete it; with ``kept`` false, no longer keep it.

    Returns whether that changed anything.

    Raises: ``NotFound``.
    """

    function = "document_keep"
    speakers = ("actor",)

    kind: str
    key: str
    kept: bool = True
    actor: str | None = None


class Restore(InProject[DocumentHeader], frozen=True, kw_only=True):
    """Write the value of an earlier version again, as a new version.

    The default is the latest value, which recovers a deleted or expired document.

    Raises: ``NotFound`` if there is no such version, or it is no longer kept (``ZC218``); ``Conflict`` as in ``Put``.
    """

    function = "document_restore"
    speakers = ("actor",)
    conditional = True
    versioned = True

    kind: str
    key: str
    version: int | None = None
    expect: int | None = None
    epoch: str | None = None
    ttl: timedelta | None = None
    actor: str | None = None


class List(InProject[list[DocumentHeader]], frozen=True, kw_only=True):
    """List documents, or those of a ``kind``, whose keys begin with ``prefix``, in byte order; without their values."""

    function = "document_list"
    reads = True
    page_by = ("kind", "key")

    kind: str | None = None
    prefix: str = ""
    after: list[str] | None = None
    limit: int = 1000


class History(InProject[list[DocumentVersion]], frozen=True, kw_only=True):
    """List the retained versions of a document, newest first, even if it is deleted or expired.

    Raises: ``NotFound``.
    """

    function = "document_history"
    reads = True
    page_by = ("version",)

    kind: str
    key: str
    after: list[str] | None = None
    limit: int = 1000


class Diff(InProject[JsonText], frozen=True, kw_only=True):
    """Return the JSON Patch (RFC 6902) from ``version`` of a document to ``other``, by default the latest.

    Raises: ``NotFound`` if there is no such version, or it is no longer kept (``ZC218``).
    """

    function = "document_diff"
    reads = True

    kind: str
    key: str
    version: int
    other: int | None = None


class Assert(InProject[None], frozen=True, kw_only=True):
    """Require, in a transaction, that a document is at ``version``, and of ``epoch`` if that is given; 0: that it is absent.

    Raises: ``Conflict`` with the current version and epoch in ``detail``.
    """

    function = "assert_document"
    internal = True

    kind: str
    key: str
    version: int
    epoch: str | None = None


class Prune(Operation[int], frozen=True, kw_only=True):
    """Delete documents that were put while their project was being deleted; return how many versions."""

    function = "document_prune"
    internal = True
