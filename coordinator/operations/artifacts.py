"""Artifacts: named bytes of a project or a session. ``operations.transfer`` joins the calls of an upload or a download."""

from __future__ import annotations

from uuid import UUID

from msgspec.structs import replace

from coordinator.model.artifact import Artifact, ArtifactObject, ArtifactPart, Upload
from coordinator.model.operation import Batch, InProject, Objects, Operation

__all__ = [
    "Abort",
    "Begin",
    "Chunk",
    "Delete",
    "DeleteObjects",
    "DeletedObjects",
    "Finish",
    "Keep",
    "List",
    "Move",
    "Moved",
    "Part",
    "Prune",
    "Put",
    "Show",
    "Write",
]

OCTETS = "application/octet-stream"


class Put(InProject[Artifact], frozen=True, kw_only=True):
    """Store an artifact of at most 1 MiB; it replaces one with the same name. Storing the same content again changes nothing.

    ``sha256``, in hexadecimal, is compared. ``expect`` is the hash of the content that the name must have now; 0: it must be absent.

    Raises: ``Conflict`` for another hash, or if ``expect`` does not hold: ``detail`` has what is there.
    """

    function = "artifact_put"
    conditional = True
    speakers = ("actor",)
    max_bytes = "artifact_part_bytes"

    artifact: str
    data: bytes
    media_type: str = OCTETS
    session: str | None = None
    sha256: str | None = None
    expect: str | None = None
    actor: str | None = None


class Begin(InProject[Upload], frozen=True, kw_only=True):
    """Begin to upload an artifact in parts of 1 MiB, or continue: uploads with the same ``sha256`` are one.

    Write the missing parts in any order, then finish. The upload ends when nothing was written for an hour. ``expect`` is
    compared now and by ``Finish``.

    Raises: ``InvalidArgument`` for an artifact that is too large, too many uploads in progress, or a project that is full; ``Conflict`` if
    ``expect`` does not hold.
    """

    function = "artifact_begin"
    conditional = True
    speakers = ("actor",)

    artifact: str
    media_type: str = OCTETS
    session: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    expect: str | None = None
    actor: str | None = None


class Write(InProject[bool], frozen=True, kw_only=True):
    """Write a part of an upload, numbered from 1. Return false if the part already exists.

    Until the upload is finished, a crash of the database may lose the newest parts.

    Raises: ``NotFound`` if there is no such upload; ``Conflict`` if the part exists with other bytes.
    """

    function = "artifact_write"
    durable = False  # artifact_finish is durable, and detects parts that a crash has lost
    speakers = ("actor",)
    max_bytes = "artifact_part_bytes"

    upload: UUID
    number: int
    data: bytes
    actor: str | None = None


class Finish(InProject[Artifact], frozen=True, kw_only=True):
    """Verify that an upload is complete, with this size and hash, and store it under its name. Finishing again changes nothing.

    ``expect`` is the hash of the content that the name must have now; 0: it must be absent.

    Raises: ``NotFound`` if there is no such upload; ``Conflict`` if a part is missing, size or hash differ, or
    ``expect`` does not hold, with the cause in ``detail``.
    """

    function = "artifact_finish"
    conditional = True
    speakers = ("actor",)

    upload: UUID
    artifact: str
    media_type: str = OCTETS
    session: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    expect: str | None = None
    actor: str | None = None


class Abort(InProject[bool], frozen=True, kw_only=True):
    """End an upload and delete its parts. Return false if there is none, or it is finished."""

    function = "artifact_abort"
    speakers = ("actor",)

    upload: UUID
    actor: str | None = None


class Show(InProject[Artifact], frozen=True, kw_only=True):
    """Read the metadata of an artifact, without its bytes.

    Raises: ``NotFound``.
    """

    function = "artifact_show"
    reads = True
    route = "/v1/artifact_details/{artifact}"

    artifact: str
    session: str | None = None


class Part(InProject[ArtifactPart], frozen=True, kw_only=True):
    """Read up to ``length`` bytes of an artifact from ``offset`` on, at most 1 MiB; the result is empty at its end.

    With ``sha256``, read that content, even if the name has another content by now.

    Raises: ``NotFound``; ``StoreUnavailable`` if the bytes are in an object store that does not return them.
    """

    function = "artifact_part"
    reads = True
    fetches = True
    route = "/v1/artifact_parts/{artifact}"

    artifact: str
    session: str | None = None
    sha256: str | None = None
    offset: int = 0
    length: int = 1 << 20

    async def fetched(self, result: ArtifactPart, objects: Objects) -> ArtifactPart:
        """Return the part with its bytes."""
        if result.store is None or result.object is None or result.data is not None:
            return result
        data = await objects.read(result.store, result.object, result.first, result.length)
        return replace(result, data=data)


class List(InProject[list[Artifact]], frozen=True, kw_only=True):
    """List the artifacts of a project and its sessions, or of one session, by name.

    ``media_type`` selects a type, or all types of ``text/*``.
    """

    function = "artifact_list"
    reads = True
    page_by = ("artifact", "id")

    prefix: str = ""
    session: str | None = None
    media_type: str | None = None
    after: list[str] | None = None
    limit: int = 1000


class Keep(InProject[Artifact], frozen=True, kw_only=True):
    """Keep an artifact, so that retention does not delete it; with ``kept`` false, no longer keep it.

    Raises: ``NotFound``.
    """

    function = "artifact_keep"
    speakers = ("actor",)

    artifact: str
    session: str | None = None
    kept: bool = True
    actor: str | None = None


class Delete(InProject[bool], frozen=True, kw_only=True):
    """Delete an artifact. Its bytes are deleted an hour later, unless another artifact has the same content.

    Raises: ``NotFound``.
    """

    function = "artifact_delete"
    speakers = ("actor",)

    artifact: str
    session: str | None = None
    actor: str | None = None


class Prune(Batch, frozen=True, kw_only=True):
    """Delete the remains of unfinished uploads, and contents without an artifact. Repeat until 0."""

    function = "artifact_prune"

    limit: int = 10


class Move(Operation[list[ArtifactObject]], frozen=True, kw_only=True):
    """Return a content to move to the object store; none if all are moved."""

    function = "artifact_move"
    internal = True

    store: str


class Chunk(Operation[bytes | None], frozen=True, kw_only=True):
    """Return a part of a content that is being moved; None if the content was deleted."""

    function = "artifact_chunk"
    reads = True
    internal = True

    object: int
    number: int


class Moved(Operation[bool], frozen=True, kw_only=True):
    """Use a verified object instead of the parts in the database; false if the content was deleted or has already moved, or this took too long."""

    function = "artifact_moved"
    internal = True

    object: int


class DeleteObjects(Operation[list[ArtifactObject]], frozen=True, kw_only=True):
    """Return objects to delete from the object store. They are returned again after a minute, unless ``DeletedObjects`` was called for them."""

    function = "artifact_object_delete"
    internal = True

    store: str
    limit: int = 100


class DeletedObjects(Operation[int], frozen=True, kw_only=True):
    """Remove the records of objects that were deleted from the object store; return how many."""

    function = "artifact_object_deleted"
    internal = True

    objects: list[int]
