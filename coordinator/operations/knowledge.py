"""Knowledge: searchable texts with a title and a source."""

from __future__ import annotations

from msgspec import field

from coordinator.model.knowledge import KnowledgeEntry, KnowledgeMatch
from coordinator.model.operation import InProject, Json

__all__ = ["Delete", "Get", "List", "Put", "Search"]


class Put(InProject[KnowledgeEntry], frozen=True, kw_only=True):
    """Put an entry of knowledge, which replaces the one with its key.

    ``title`` is by default the key. ``language`` is that in which the words are searched: english, german, or simple for any other.
    ``embedding`` is that of title and content, for searches by embedding. ``expect`` and ``epoch`` are the version and epoch that it
    must have now; 0 if it must not exist.

    Raises: ``Conflict`` with the current version in ``detail``: read it and decide again.
    """

    function = "knowledge_put"
    speakers = ("actor",)
    conditional = True
    versioned = True
    max_bytes = "document_body"
    examples = {"key": "runbooks/rollback", "content": "To roll back, run make rollback.", "title": "Roll back"}

    key: str
    content: str
    title: str | None = None
    source_type: str | None = None
    source_url: str | None = None
    metadata: dict[str, Json] = field(default_factory=dict)
    language: str = "english"
    embedding: list[float] | None = None
    expect: int | None = None
    epoch: str | None = None
    actor: str | None = None


class Get(InProject[KnowledgeEntry], frozen=True, kw_only=True):
    """Read an entry of knowledge.

    Raises: ``NotFound``.
    """

    function = "knowledge_get"
    reads = True
    versioned = True
    route = "/v1/knowledge/{key}"

    key: str


class List(InProject[list[KnowledgeEntry]], frozen=True, kw_only=True):
    """List entries of knowledge, the most recently put first; from a source, or with these members in their metadata."""

    function = "knowledge_list"
    reads = True
    page_by = ("updated_at", "key")

    source_type: str | None = None
    source_url: str | None = None
    metadata: Json = None
    after: list[str] | None = None
    limit: int = 1000


class Delete(InProject[bool], frozen=True, kw_only=True):
    """Delete an entry of knowledge; with ``expect`` and ``epoch``, only at that version.

    Raises: ``NotFound``, ``Conflict``.
    """

    function = "knowledge_delete"
    speakers = ("actor",)
    conditional = True

    key: str
    expect: int | None = None
    epoch: str | None = None
    actor: str | None = None


class Search(InProject[list[KnowledgeMatch]], frozen=True, kw_only=True):
    """Search knowledge for ``words``, an ``embedding``, or both; from a source, or with these members in the metadata.

    ``words`` are as in a web search: word other, "a phrase", or, -without. With both, the rank is the sum of 1 / (60 + place) in both
    rankings (reciprocal rank fusion). An embedding needs the extension pgvector.

    Raises: ``InvalidArgument`` for words that every text contains, and an unknown language.
    """

    function = "knowledge_search"
    reads = True
    page_by = ("rank", "key")

    words: str | None = None
    source_type: str | None = None
    source_url: str | None = None
    metadata: Json = None
    language: str = "english"
    embedding: list[float] | None = None
    after: list[str] | None = None
    limit: int = 20
