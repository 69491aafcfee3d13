"""Signals: a project's keys with values, versions and TTL."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar
from uuid import UUID

from coordinator.model.operation import Json, Operation
from coordinator.model.signal import Signal

__all__ = ["Delete", "Expire", "Get", "List", "Prune", "Set"]


class Set(Operation[Signal], frozen=True, kw_only=True):
    """Set a signal, and clear what its rule says, in one transaction.

    ``ttl`` is 1 second to 366 days, by default 24 hours; ``critical`` has none. ``expect``: only at this version, 0:
    only if not set. ``ephemeral``: it ends with ``agent``.

    Raises: ``Conflict`` with the present version in ``detail``: read again and decide anew.
    """

    function: ClassVar[str] = "signal_set"
    project: str
    key: str
    value: Json
    ttl: timedelta | None = None
    critical: bool = False
    expect: int | None = None
    agent: UUID | None = None
    ephemeral: bool = False
    actor: str | None = None


class Get(Operation[Signal], frozen=True, kw_only=True):
    """Read a signal.

    Raises: ``NotFound`` where it is not set, deleted or expired.
    """

    function: ClassVar[str] = "signal_get"
    reads: ClassVar[bool] = True
    route: ClassVar[str | None] = "/v1/signals/{key}"
    project: str
    key: str


class List(Operation[list[Signal]], frozen=True, kw_only=True):
    """List signals whose keys begin with ``prefix``, in byte order."""

    function: ClassVar[str] = "signal_list"
    reads: ClassVar[bool] = True
    page_by: ClassVar[tuple[str, ...]] = ("key",)
    project: str
    prefix: str = ""
    after: list[str] | None = None
    limit: int = 1000


class Delete(Operation[int], frozen=True, kw_only=True):
    """Delete a signal, with ``expect`` only at this version; answers with the version it had.

    Raises: ``NotFound``, ``Conflict``.
    """

    function: ClassVar[str] = "signal_delete"
    project: str
    key: str
    expect: int | None = None
    actor: str | None = None


class Expire(Operation[int], frozen=True, kw_only=True):
    """Take away signals whose TTL passed; answers how many. Again until 0."""

    function: ClassVar[str] = "signal_expire"
    internal: ClassVar[bool] = True
    limit: int = 1000


class Prune(Operation[int], frozen=True, kw_only=True):
    """Delete signals that were set while their project was being deleted; answers how many."""

    function: ClassVar[str] = "signal_prune"
    internal: ClassVar[bool] = True
