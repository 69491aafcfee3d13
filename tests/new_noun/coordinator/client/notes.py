"""Notes: short texts that agents of a project leave for each other."""

from __future__ import annotations

from coordinator.client.caller import Duration, Verbs, as_duration
from coordinator.client.listing import PAGE, Listing
from coordinator.model.note import Note
from coordinator.operations import notes

__all__ = ["Notes"]


class Notes(Verbs):
    """The notes of the client's project."""

    async def write(self, key: str, text: str, *, ttl: Duration = 86400) -> Note:
        """Write a note, or replace the one with the same key."""
        return await self._caller.run(
            notes.Write(key=key, text=text, ttl=as_duration(ttl), **await self._caller.author())
        )

    def list(self, *, after: str | None = None, limit: int = PAGE) -> Listing[Note]:
        """List the notes of the project by key."""
        return Listing(self._caller, notes.List(project=self._caller.project, limit=limit), after)

    async def delete(self, key: str) -> None:
        """Delete a note.

        Raises: ``NotFound``.
        """
        await self._caller.run(notes.Delete(key=key, **await self._caller.author()))
