"""Moves finished contents of artifacts to the object store, and deletes the objects of contents that no longer exist.

A run moves one content: it creates the row of the object, writes the object, reads it back, and then makes the content
refer to it. If it is killed, paused or repeated at any step, it loses no content and forgets no object: see
``sql/functions/artifact/object.sql``. While the store is unavailable, contents stay in the database, the loop tries
again after up to 30 seconds, and ``status`` reports it.
"""

from __future__ import annotations

import hashlib

from coordinator.errors import StoreUnavailable
from coordinator.loops.loop import Loop, LoopRun
from coordinator.model.artifact import ArtifactObject
from coordinator.model.catalogue import LIMITS
from coordinator.objects import ObjectStore
from coordinator.operations import artifacts
from coordinator.operations.executor import Runner

__all__ = ["DeletingObjects", "MovingContents"]

PART_BYTES = LIMITS["artifact_part_bytes"]


class MovingContents(Loop, frozen=True, kw_only=True):
    """Moves contents to ``objects``."""

    operation: artifacts.Move
    objects: ObjectStore

    async def run(self, executor: Runner) -> LoopRun:
        """Move one content.

        Raises: ``StoreUnavailable``; ``ConfigurationError``.
        """
        moved = 0
        found = await executor.run(self.operation)
        for content in found:
            moved += await self._write(executor, content) and await executor.run(artifacts.Moved(object=content.object))
        return LoopRun(moved, again_s=0 if found else None)

    async def _write(self, executor: Runner, content: ArtifactObject) -> bool:
        """Write an object and verify it; return false if its content is gone."""
        size = content.bytes or 0
        parts = []
        for number in range(1, -(-size // PART_BYTES) + 1):
            part = await executor.run(artifacts.Chunk(object=content.object, number=number))
            if part is None:
                return False
            parts.append(part)
        await self.objects.write(content.key, parts)
        del parts
        digest = hashlib.sha256()
        async for piece in self.objects.pieces(content.key, size):
            digest.update(piece)
        if await self.objects.size(content.key) != size or digest.hexdigest() != content.sha256:
            raise StoreUnavailable(
                f"object {content.key} of {self.objects.url} has other bytes than were written",
                hint="Check the store. The content stays in the database.",
            )
        return True


class DeletingObjects(Loop, frozen=True, kw_only=True):
    """Deletes objects of ``objects`` that have no content."""

    operation: artifacts.DeleteObjects
    objects: ObjectStore

    async def run(self, executor: Runner) -> LoopRun:
        """Delete a batch.

        Raises: ``StoreUnavailable``; ``ConfigurationError``.
        """
        found = await executor.run(self.operation)
        if not found:
            return LoopRun(0)
        await self.objects.delete([one.key for one in found])
        return LoopRun(await executor.run(artifacts.DeletedObjects(objects=[one.object for one in found])), again_s=0)
