"""Knowledge: texts with a title and a source, and what a search among them found."""

from __future__ import annotations

from datetime import datetime

import msgspec

from coordinator.model.operation import Json

__all__ = ["KnowledgeEntry", "KnowledgeMatch"]


class KnowledgeEntry(msgspec.Struct, frozen=True):
    """An entry of knowledge. ``version`` counts its versions; ``epoch`` is that in which this one was written."""

    project: str
    key: str
    title: str
    content: str
    source_type: str | None
    source_url: str | None
    metadata: dict[str, Json]
    language: str
    version: int
    epoch: str
    actor: str
    created_at: datetime
    updated_at: datetime


class KnowledgeMatch(msgspec.Struct, frozen=True):
    """An entry that a search found, without its content, and with its ``rank`` among the others.

    ``snippet`` has the words that were found between ``**``. ``partial``: more was found, and only the newest matches were ranked.
    """

    project: str
    key: str
    title: str
    source_type: str | None
    source_url: str | None
    metadata: dict[str, Json]
    language: str
    version: int
    actor: str
    created_at: datetime
    updated_at: datetime
    rank: float
    snippet: str
    partial: bool
