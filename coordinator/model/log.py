"""Logs: append-only lists of entries."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from coordinator.model.json import Exact, value_of
from coordinator.model.operation import JsonText

__all__ = ["Log", "LogEntry", "LogReceipt", "NewEntry"]


class NewEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry to append. ``data`` is any JSON value, or its text (``JsonText``), which passes byte for byte.

    ``uid`` is a name in the log, which makes a repetition harmless. ``role`` is by default that of data. ``needs`` is the number of the earliest
    entry without which this one is of no use, or -1 for the entry before it.
    """

    data: Any
    uid: str | None = None
    role: str | None = None
    tokens: int | None = None
    needs: int | None = None


class Log(msgspec.Struct, frozen=True):
    """A log without its entries: those below ``first_seq`` are gone, ``last_seq`` was the last number given, in ``epoch``."""

    project: str
    kind: str
    key: str
    first_seq: int
    last_seq: int
    count: int
    epoch: str
    kept: bool
    updated_at: datetime


class LogReceipt(msgspec.Struct, frozen=True):
    """The result of an append: the numbers of its entries, and how many of them are new."""

    kind: str
    key: str
    first_seq: int
    last_seq: int
    epoch: str
    appended: int


class LogEntry(Exact, frozen=True, dict=True):
    """An entry of a log. ``text`` is its content exactly as it was given, ``data`` the value of that."""

    seq: int
    epoch: str
    uid: str | None
    role: str | None
    tokens: int | None
    needs: int | None
    kept: bool
    actor: str
    created_at: datetime
    text: JsonText = msgspec.field(name="data")

    @cached_property
    def data(self) -> Any:
        """The content as a value."""
        return value_of(self.text)
