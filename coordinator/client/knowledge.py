"""Knowledge: searchable texts with a title and a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.model.knowledge import KnowledgeEntry, KnowledgeMatch
from coordinator.model.operation import Json
from coordinator.operations import knowledge

__all__ = ["Knowledge"]

FOUND = 20  # matches per page


class Knowledge(Verbs):
    """The knowledge of the client's project."""

    async def put(
        self,
        key: str,
        content: str,
        *,
        title: str | None = None,
        source_type: str | None = None,
        source_url: str | None = None,
        metadata: Mapping[str, Json] | None = None,
        language: str = "english",
        embedding: Sequence[float] | None = None,
        expect: int | KnowledgeEntry | None = None,
        epoch: str | None = None,
    ) -> KnowledgeEntry:
        """Put an entry of knowledge, which replaces the one with its key.

        ``title`` is by default the key. ``language`` is that in which the words are searched: english, german, or simple for any
        other. ``embedding`` is that of title and content, for searches by embedding. With ``expect``, put it only if it is still as it
        was read, or at this version (of this ``epoch``); 0 means only if it does not exist.

        Raises: ``Conflict`` with the present version in ``detail``; ``InvalidArgument`` for an unknown language.
        """
        return await self._caller.run(
            knowledge.Put(
                key=key,
                content=content,
                title=title,
                source_type=source_type,
                source_url=source_url,
                metadata=dict(metadata or {}),
                language=language,
                embedding=None if embedding is None else list(embedding),
                **_expected(expect, epoch),
                **await self._caller.author(),
            )
        )

    async def get(self, key: str) -> KnowledgeEntry:
        """Return an entry.

        Raises: ``NotFound``.
        """
        return await self._caller.run(knowledge.Get(project=self._caller.project, key=key))

    async def delete(self, key: str, *, expect: int | KnowledgeEntry | None = None, epoch: str | None = None) -> bool:
        """Delete an entry; with ``expect``, only if it is still as it was read, or at this version (of this ``epoch``).

        Raises: ``NotFound``, ``Conflict``.
        """
        return await self._caller.run(
            knowledge.Delete(key=key, **_expected(expect, epoch), **await self._caller.author())
        )

    def list(
        self,
        *,
        source_type: str | None = None,
        source_url: str | None = None,
        metadata: Mapping[str, Json] | None = None,
        after: str | None = None,
        limit: int = PAGE,
    ) -> Listing[KnowledgeEntry]:
        """List entries, the most recently put first; from a source, or with these members in their metadata."""
        operation = knowledge.List(
            project=self._caller.project,
            source_type=source_type,
            source_url=source_url,
            metadata=None if metadata is None else dict(metadata),
            limit=limit,
        )
        return Listing(self._caller, operation, after)

    def search(
        self,
        words: str | None = None,
        *,
        source_type: str | None = None,
        source_url: str | None = None,
        metadata: Mapping[str, Json] | None = None,
        language: str = "english",
        embedding: Sequence[float] | None = None,
        after: str | None = None,
        limit: int = FOUND,
    ) -> Listing[KnowledgeMatch]:
        """Search for ``words``, an ``embedding``, or both: the best first; from a source, or with these members in the metadata.

        ``words`` are as in a web search: word other, "a phrase", or, -without. With both, the rank is the sum of 1 / (60 + place) in
        both rankings (reciprocal rank fusion: Cormack, Clarke and Büttcher, 2009). An embedding needs the extension pgvector.

        Raises: ``InvalidArgument`` for words that every text contains, and an unknown language.
        """
        operation = knowledge.Search(
            project=self._caller.project,
            words=words,
            source_type=source_type,
            source_url=source_url,
            metadata=None if metadata is None else dict(metadata),
            language=language,
            embedding=None if embedding is None else [*embedding],
            limit=limit,
        )
        return Listing(self._caller, operation, after)


def _expected(expect: int | KnowledgeEntry | None, epoch: str | None) -> dict[str, Any]:
    if isinstance(expect, KnowledgeEntry):
        return {"expect": expect.version, "epoch": expect.epoch}
    return {"expect": expect, "epoch": epoch}
