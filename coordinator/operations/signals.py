"""Signals: keys of a project with values, versions and TTL."""

from __future__ import annotations

from datetime import timedelta

from coordinator.model.agent_ref import AgentRef
from coordinator.model.operation import Batch, InProject, Json, Operation
from coordinator.model.signal import Signal

__all__ = ["Assert", "Delete", "Expire", "Get", "List", "Prune", "Set"]


class Set(InProject[Signal], frozen=True, kw_only=True):
    """Set a signal, and clear those that its rule names in the same transaction.

    ``ttl`` is 1 second to 366 days, by default 24 hours; a ``critical`` signal has none. ``expect`` is the version that it must
    have now; 0 if it must not exist. An ``ephemeral`` signal ends with ``agent``.

    Raises: ``Conflict`` with the current version in ``detail``: read it and decide again.
    """

    function = "signal_set"
    speakers = ("actor",)
    conditional = True
    versioned = True

    key: str
    value: Json
    ttl: timedelta | None = None
    critical: bool = False
    expect: int | None = None
    agent: AgentRef | None = None
    ephemeral: bool = False
    actor: str | None = None


class Get(InProject[Signal], frozen=True, kw_only=True):
    """Read a signal.

    Raises: ``NotFound`` if it was never set, was deleted or has expired.
    """

    function = "signal_get"
    reads = True
    versioned = True
    route = "/v1/signals/{key}"

    key: str


class List(InProject[list[Signal]], frozen=True, kw_only=True):
    """List signals whose keys begin with ``prefix``, in byte order."""

    function = "signal_list"
    reads = True
    page_by = ("key",)

    prefix: str = ""
    after: list[str] | None = None
    limit: int = 1000


class Delete(InProject[int], frozen=True, kw_only=True):
    """Delete a signal, with ``expect`` only at that version; return its version.

    Raises: ``NotFound``, ``Conflict``.
    """

    function = "signal_delete"
    speakers = ("actor",)
    conditional = True

    key: str
    expect: int | None = None
    actor: str | None = None


class Assert(InProject[None], frozen=True, kw_only=True):
    """Require, in a transaction, that a signal is at ``version``; 0: that it is not set.

    Raises: ``Conflict`` with the current version in ``detail``.
    """

    function = "assert_signal"
    internal = True

    key: str
    version: int


class Expire(Batch, frozen=True, kw_only=True):
    """Expire signals whose TTL has passed; return how many. Repeat until 0."""

    function = "signal_expire"


class Prune(Operation[int], frozen=True, kw_only=True):
    """Delete signals that were set while their project was being deleted; return how many."""

    function = "signal_prune"
    internal = True
