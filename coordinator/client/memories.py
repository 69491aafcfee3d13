"""Memories: lessons that agents recorded, for agents that meet the same context."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.model.memory import MemoryEntry, MemoryMatch
from coordinator.operations import memories

__all__ = ["Memories"]

FOUND = 20  # matches per page


class Memories(Verbs):
    """The memories of the client's project."""

    async def record(
        self,
        lesson: str,
        *,
        context: str = "",
        tool_name: str | None = None,
        confidence: float = 50.0,
        scope: str = "",
        language: str = "english",
        embedding: Sequence[float] | None = None,
    ) -> MemoryEntry:
        """Record a lesson, or reinforce the existing memory with the same lesson, context, tool and scope.

        ``confidence`` is 0 to 100. It halves every 90 days without another record; recording again combines the current
        confidence a with the new one, b: 100 - (100 - a) * (100 - b) / 100. ``embedding`` is the embedding of lesson
        and context, for searches by embedding.
        """
        return await self._caller.run(
            memories.Record(
                lesson=lesson,
                context=context,
                tool_name=tool_name,
                confidence=confidence,
                memory_scope=scope,
                language=language,
                embedding=None if embedding is None else list(embedding),
                **await self._caller.author(),
            )
        )

    async def supersede(
        self,
        memory: str,
        lesson: str,
        *,
        context: str | None = None,
        tool_name: str | None = None,
        confidence: float = 50.0,
        scope: str | None = None,
        language: str | None = None,
        embedding: Sequence[float] | None = None,
    ) -> MemoryEntry:
        """Record a lesson that replaces a memory, and return it. Omitted fields keep the values of that memory.

        Lists and searches omit the replaced memory, unless they ask for it.

        Raises: ``NotFound``; ``Conflict`` if another memory has superseded it, with that one in ``detail``.
        """
        return await self._caller.run(
            memories.Supersede(
                memory=memory,
                lesson=lesson,
                context=context,
                tool_name=tool_name,
                confidence=confidence,
                memory_scope=scope,
                language=language,
                embedding=None if embedding is None else list(embedding),
                **await self._caller.author(),
            )
        )

    async def forget(self, memory: str) -> bool:
        """Forget a memory.

        Raises: ``NotFound``.
        """
        return await self._caller.run(memories.Forget(memory=memory, **await self._caller.author()))

    async def get(self, memory: str) -> MemoryEntry:
        """Return a memory, even if it was superseded.

        Raises: ``NotFound``.
        """
        return await self._caller.run(memories.Get(project=self._caller.project, memory=memory))

    def list(
        self,
        *,
        scope: str | None = None,
        tool_name: str | None = None,
        superseded: bool = False,
        after: str | None = None,
        limit: int = PAGE,
    ) -> Listing[MemoryEntry]:
        """List memories, the most recently recorded first; with ``superseded``, also superseded ones."""
        operation = memories.List(
            project=self._caller.project, memory_scope=scope, tool_name=tool_name, superseded=superseded, limit=limit
        )
        return Listing(self._caller, operation, after)

    def search(
        self,
        words: str | None = None,
        *,
        scope: str | None = None,
        tool_name: str | None = None,
        superseded: bool = False,
        language: str = "english",
        embedding: Sequence[float] | None = None,
        after: str | None = None,
        limit: int = FOUND,
    ) -> Listing[MemoryMatch]:
        """Search memories for ``words``, an ``embedding``, or both: the best first.

        ``words`` are as in a web search: word other, "a phrase", or, -without. The rank is that of the words times the confidence.
        With both, it is the sum of 1 / (60 + place) in both rankings (reciprocal rank fusion: Cormack, Clarke and Büttcher, 2009).
        An embedding needs the extension pgvector.

        Raises: ``InvalidArgument`` for words that every text contains, and an unknown language.
        """
        operation = memories.Search(
            project=self._caller.project,
            words=words,
            memory_scope=scope,
            tool_name=tool_name,
            superseded=superseded,
            language=language,
            embedding=None if embedding is None else [*embedding],
            limit=limit,
        )
        return Listing(self._caller, operation, after)
