"""Documents: values under a kind and a key, in versions."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from coordinator.model.json import Exact, value_of
from coordinator.model.operation import JsonText

__all__ = ["Document", "DocumentHeader", "DocumentVersion"]


class DocumentHeader(msgspec.Struct, frozen=True):
    """A document without its value. ``version`` and ``epoch`` together name one content for ever."""

    project: str
    kind: str
    key: str
    version: int
    epoch: str
    session: str | None
    kept: bool
    actor: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


class Document(DocumentHeader, Exact, frozen=True, dict=True):
    """A version of a document. ``text`` is its content exactly as it was put, ``value`` the value of that."""

    text: JsonText = msgspec.field(name="value")

    @cached_property
    def value(self) -> Any:
        """The value, or the part of it that was asked for."""
        return value_of(self.text)


class DocumentVersion(msgspec.Struct, frozen=True):
    """A retained version; ``deleted``: this version deleted the document, and has no value."""

    version: int
    epoch: str
    deleted: bool
    text_bytes: int | None
    actor: str
    written_at: datetime
    expires_at: datetime | None
