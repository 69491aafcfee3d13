"""Transactions: several writes in one call."""

from __future__ import annotations

import msgspec

from coordinator.model.operation import Json

__all__ = ["Outcome"]


class Outcome(msgspec.Struct, frozen=True):
    """A row that a write returned: the write's place in the list, from 0; its verb; the row as an object, or a single value."""

    write: int
    verb: str
    result: Json
