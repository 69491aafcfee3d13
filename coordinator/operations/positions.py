"""Positions: whether reads include what a writer wrote."""

from __future__ import annotations

from coordinator.model.operation import Operation, Scope

__all__ = ["Included"]


class Included(Operation[bool], frozen=True, kw_only=True):
    """Return whether reads include a position that a write returned, a cursor, or several of them, separated by commas.

    ``in_log``: the events of the write have their numbers, too, so that reads of the log include them.

    Raises: ``InvalidArgument``; ``Conflict`` if no read will ever include it: the transaction was rolled back, or may be lost.
    """

    function = "position_included"
    reads = True
    scope = Scope.NONE
    woken_by = ("*",)

    position: str
    in_log: bool = True
