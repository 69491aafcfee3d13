"""Memories: lessons that agents recorded, for agents that meet the same context."""

from __future__ import annotations

from coordinator.model.memory import MemoryEntry, MemoryMatch
from coordinator.model.operation import InProject

__all__ = ["Forget", "Get", "List", "Record", "Search", "Supersede"]


class Record(InProject[MemoryEntry], frozen=True, kw_only=True):
    """Record a lesson, or reinforce the existing memory with the same lesson, context, tool and scope.

    ``confidence`` is 0 to 100. It halves every 90 days without another record; recording again combines the current
    confidence a with the new one, b: 100 - (100 - a) * (100 - b) / 100. ``embedding`` is the embedding of lesson and
    context, for searches by embedding.
    """

    function = "memory_record"
    speakers = ("actor",)
    examples = {"context": "integration tests", "tool_name": "pytest"}

    lesson: str
    context: str = ""
    tool_name: str | None = None
    confidence: float = 50.0
    memory_scope: str = ""
    language: str = "english"
    embedding: list[float] | None = None
    actor: str | None = None


class Supersede(InProject[MemoryEntry], frozen=True, kw_only=True):
    """Record a lesson that replaces a memory. Omitted fields keep the values of that memory. Lists and searches omit the replaced memory.

    Raises: ``NotFound``; ``Conflict`` if another memory has superseded it, with that one in ``detail``.
    """

    function = "memory_supersede"
    speakers = ("actor",)
    examples = {"context": "integration tests", "tool_name": "pytest"}

    memory: str
    lesson: str
    context: str | None = None
    tool_name: str | None = None
    confidence: float = 50.0
    memory_scope: str | None = None
    language: str | None = None
    embedding: list[float] | None = None
    actor: str | None = None


class Forget(InProject[bool], frozen=True, kw_only=True):
    """Forget a memory.

    Raises: ``NotFound``.
    """

    function = "memory_forget"
    speakers = ("actor",)

    memory: str
    actor: str | None = None


class Get(InProject[MemoryEntry], frozen=True, kw_only=True):
    """Read a memory, even if it was superseded.

    Raises: ``NotFound``.
    """

    function = "memory_get"
    reads = True
    route = "/v1/memories/{memory}"

    memory: str


class List(InProject[list[MemoryEntry]], frozen=True, kw_only=True):
    """List memories, the most recently recorded first; with ``superseded``, also superseded ones."""

    function = "memory_list"
    reads = True
    page_by = ("updated_at", "memory_id")

    memory_scope: str | None = None
    tool_name: str | None = None
    superseded: bool = False
    after: list[str] | None = None
    limit: int = 1000


class Search(InProject[list[MemoryMatch]], frozen=True, kw_only=True):
    """Search memories for ``words``, an ``embedding``, or both; with ``superseded`` also those that were superseded.

    ``words`` are as in a web search: word other, "a phrase", or, -without. The rank is that of the words times the confidence. With
    both, it is the sum of 1 / (60 + place) in both rankings (reciprocal rank fusion). An embedding needs the extension pgvector.

    Raises: ``InvalidArgument`` for words that every text contains, and an unknown language.
    """

    function = "memory_search"
    reads = True
    page_by = ("rank", "memory_id")

    words: str | None = None
    memory_scope: str | None = None
    tool_name: str | None = None
    superseded: bool = False
    language: str = "english"
    embedding: list[float] | None = None
    after: list[str] | None = None
    limit: int = 20
