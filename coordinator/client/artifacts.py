"""Artifacts: named bytes of a project or a session, from memory, a file or a stream, and back."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
from msgspec.structs import replace

from coordinator.client.caller import Caller
from coordinator.client.listing import PAGE, Listing
from coordinator.errors import Conflict
from coordinator.model.artifact import Artifact
from coordinator.model.operation import Operation
from coordinator.operations import artifacts
from coordinator.operations.executor import Runner
from coordinator.operations.transfer import PART_BYTES, download, upload

__all__ = ["Artifacts", "fetch", "media_type_of", "store"]

R = TypeVar("R")

Moved = Callable[[int, int | None], Any]


class Artifacts:
    """The artifacts of the client's project."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._runner = _Repeating(caller)

    async def put(
        self,
        artifact: str,
        data: bytes | Path | AsyncIterable[bytes],
        *,
        media_type: str | None = None,
        session: str | None = None,
        sha256: str | None = None,
        expect: Artifact | str | int | None = None,
        moved: Moved | None = None,
    ) -> Artifact:
        """Store an artifact, replacing one with the same name: bytes, the content of a file, or the pieces of a stream.

        At most one part of a file or stream is in memory. If the upload fails, readers see nothing of it. Storing the
        same bytes or file again continues where it stopped; so does a stream if you give its ``sha256``, in
        hexadecimal. ``media_type`` defaults to the type that the name suggests. ``expect`` is the required current
        content: the artifact as it was read, or its hash; 0: there must be none. ``moved`` is called with the number of
        stored bytes, and the total.

        Raises: ``Conflict`` if the content has another hash, the file changed meanwhile, or ``expect`` does not hold;
        ``InvalidArgument`` beyond 64 MiB, or if the project is full; ``OSError`` from the file.
        """
        begin = artifacts.Begin(
            artifact=artifact,
            media_type=media_type or media_type_of(artifact),
            session=session,
            sha256=sha256,
            expect=expect.sha256 if isinstance(expect, Artifact) else None if expect is None else str(expect),
            **await self._caller.author(),
        )
        return await store(self._runner, begin, data, moved)

    async def get(
        self, artifact: str, to: Path | None = None, *, session: str | None = None, moved: Moved | None = None
    ) -> bytes:
        """Return the content of an artifact; or write it to a file, which appears when it is complete, and return nothing.

        Raises: ``NotFound``; ``Conflict`` if the received content has another hash; ``OSError`` from the file.
        """
        found = await self.show(artifact, session=session)
        if to is not None:
            await fetch(self._runner, found, to, moved)
            return b""
        content = b"".join([part async for part in download(self._runner, found)])
        _verify(found, hashlib.sha256(content).hexdigest())
        return content

    async def stream(self, artifact: str, *, session: str | None = None) -> AsyncIterator[bytes]:
        """Yield the content of an artifact in parts. All parts belong to one content, even if the name gets another one meanwhile.

        Raises: ``NotFound``; at its end, ``Conflict`` if the received content has another hash.
        """
        found = await self.show(artifact, session=session)
        digest = hashlib.sha256()
        async for part in download(self._runner, found):
            digest.update(part)
            yield part
        _verify(found, digest.hexdigest())

    async def show(self, artifact: str, *, session: str | None = None) -> Artifact:
        """Return the metadata of an artifact, without its bytes.

        Raises: ``NotFound``.
        """
        return await self._caller.run(artifacts.Show(project=self._caller.project, artifact=artifact, session=session))

    def list(
        self,
        prefix: str = "",
        *,
        session: str | None = None,
        media_type: str | None = None,
        after: str | None = None,
        limit: int = PAGE,
    ) -> Listing[Artifact]:
        """List the artifacts of the project and its sessions, or of one session, by name.

        ``media_type`` selects a type, or all types of ``text/*``.
        """
        operation = artifacts.List(
            project=self._caller.project, prefix=prefix, session=session, media_type=media_type, limit=limit
        )
        return Listing(self._caller, operation, after)

    async def keep(self, artifact: str, *, session: str | None = None, kept: bool = True) -> Artifact:
        """Keep an artifact, so that retention does not delete it; with ``kept=False``, no longer keep it.

        Raises: ``NotFound``.
        """
        return await self._caller.run(
            artifacts.Keep(artifact=artifact, session=session, kept=kept, **await self._caller.author())
        )

    async def delete(self, artifact: str, *, session: str | None = None) -> bool:
        """Delete an artifact.

        Raises: ``NotFound``.
        """
        return await self._caller.run(
            artifacts.Delete(artifact=artifact, session=session, **await self._caller.author())
        )


class _Repeating:
    """Runs the calls of a transfer, and retries them. All can be repeated, except those without a hash or with an expectation."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def run(self, operation: Operation[R]) -> R:
        again = getattr(operation, "sha256", "") is not None and getattr(operation, "expect", None) is None
        return await self._caller.run(operation, again=again)


def media_type_of(name: str) -> str:
    """Return the media type that the extension of a name suggests."""
    if name.endswith(".log"):  # not in any registry of types
        return "text/plain"
    found, encoding = mimetypes.guess_type(name, strict=False)
    return found if found is not None and encoding is None else artifacts.OCTETS


async def store(
    runner: Runner, begin: artifacts.Begin, data: bytes | Path | AsyncIterable[bytes], moved: Moved | None
) -> Artifact:
    """Upload bytes, a file or a stream."""
    match data:
        case bytes():
            size, sha256 = len(data), hashlib.sha256(data).hexdigest()
            pieces: AsyncIterator[bytes] = _slices(data)
        case Path():
            size, sha256 = await anyio.to_thread.run_sync(_measured, data)
            pieces = _read(data)
        case _:
            return await upload(runner, begin, aiter(data), resume=begin.sha256 is not None, moved=moved)
    begin = replace(begin, bytes=size, sha256=begin.sha256 or sha256)
    return await upload(runner, begin, pieces, resume=True, moved=moved)


async def fetch(runner: Runner, artifact: Artifact, to: Path, moved: Moved | None) -> None:
    """Download an artifact into a file. Parts of the same content that an earlier attempt received are not read again."""
    partial = to.with_name(f".{to.name}.{artifact.sha256[:16]}.part")
    async with await anyio.open_file(partial, "ab") as file:
        size = await file.tell()
        async for part in download(runner, artifact, min(size, artifact.bytes)):
            await file.write(part)
            size += len(part)
            if moved is not None:
                moved(size, artifact.bytes)
    _, sha256 = await anyio.to_thread.run_sync(_measured, partial)
    if sha256 != artifact.sha256:
        partial.unlink()
    _verify(artifact, sha256)
    partial.replace(to)


def _verify(artifact: Artifact, sha256: str) -> None:
    if sha256 != artifact.sha256:
        raise Conflict(
            f'what arrived of artifact "{artifact.artifact}" has another SHA-256', hint="Read it again.", code="ZC336"
        )


def _measured(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


async def _slices(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PART_BYTES):
        yield data[start : start + PART_BYTES]


async def _read(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(PART_BYTES):
            yield piece
