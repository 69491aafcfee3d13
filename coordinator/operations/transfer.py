"""Transfers: an artifact as a stream of bytes, made of the calls for its parts. HTTP, client and command line share it.

Guarantees: at most one part is in memory. A reader of an artifact gets one content, even if its name gets another one
meanwhile.

On failure: an upload with a hash is kept for an hour, and the next one of the same content continues it. An upload that
cannot be continued is aborted: one without a hash, or with a content that does not match its hash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import anyio

from coordinator.errors import Conflict, CoordinatorError, InvalidArgument
from coordinator.model.artifact import Artifact
from coordinator.model.catalogue import LIMITS
from coordinator.operations import artifacts
from coordinator.operations.executor import Runner

__all__ = ["PART_BYTES", "download", "upload"]

PART_BYTES = LIMITS["artifact_part_bytes"]
ABORT_S = 5.0


async def upload(
    runner: Runner,
    begin: artifacts.Begin,
    pieces: AsyncIterator[bytes],
    *,
    resume: bool,
    moved: Callable[[int, int | None], Any] | None = None,
) -> Artifact:
    """Store the pieces as an artifact. ``moved`` is called with the number of stored bytes, and the total.

    With ``resume``, existing parts are not sent again: the caller has computed the hash from these pieces.

    Raises: what the operations raise.
    """
    if begin.bytes is not None and begin.bytes <= PART_BYTES:
        data = b"".join([part async for part in _parts(pieces)])
        named = {
            name: getattr(begin, name)
            for name in ("project", "artifact", "media_type", "session", "sha256", "expect", "actor")
        }
        return await runner.run(artifacts.Put(data=data, **named))
    named = {
        name: getattr(begin, name)
        for name in ("project", "artifact", "media_type", "session", "bytes", "sha256", "expect", "actor")
    }
    started = await runner.run(begin)
    there = {*started.parts} if resume else set[int]()
    size = number = 0
    try:
        async for part in _parts(pieces):
            number += 1
            size += len(part)
            if number not in there:
                await runner.run(
                    artifacts.Write(
                        project=begin.project, upload=started.upload, number=number, data=part, actor=begin.actor
                    )
                )
            if moved is not None:
                moved(size, begin.bytes)
        return await runner.run(artifacts.Finish(**{**named, "upload": started.upload, "bytes": begin.bytes or size}))
    except BaseException as error:
        if begin.sha256 is None or isinstance(error, Conflict | InvalidArgument):
            with anyio.move_on_after(ABORT_S, shield=True), suppress(CoordinatorError):
                await runner.run(artifacts.Abort(project=begin.project, upload=started.upload, actor=begin.actor))
        raise


async def download(runner: Runner, artifact: Artifact, first: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
    """Yield an artifact's content from byte ``first`` up to ``end``, part by part.

    Raises: ``NotFound`` if that content was deleted meanwhile; what ``Part`` raises.
    """
    end = artifact.bytes if end is None else end
    while first < end:
        part = await runner.run(
            artifacts.Part(
                project=artifact.project,
                artifact=artifact.artifact,
                session=artifact.session,
                sha256=artifact.sha256,
                offset=first,
                length=min(PART_BYTES - first % PART_BYTES, end - first),
            )
        )
        if not part.data:
            raise CoordinatorError(f"artifact {artifact.artifact} ends after {first} of {artifact.bytes} bytes")
        yield part.data
        first += len(part.data)


async def _parts(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Join and split pieces into parts."""
    part = bytearray()
    async for piece in pieces:
        rest = memoryview(piece)
        while rest:
            taken = rest[: PART_BYTES - len(part)]
            part += taken
            rest = rest[len(taken) :]
            if len(part) == PART_BYTES:
                yield bytes(part)
                part = bytearray()
    if part:
        yield bytes(part)
