"""Positions: what a write returns, so that a read elsewhere can wait until it includes the write.

A position is opaque: the epoch of the log and the id of the transaction. The code that runs a write reports its
position; a caller that needs it runs the write within ``reported``, in the same task. So positions pass through every
layer alongside the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar

from coordinator.errors import WaitTimedOut

__all__ = ["AT_LEAST_S", "Positions", "not_included", "report", "reported"]

AT_LEAST_S = 5.0  # a read waits this long, in seconds, until it includes a position

_reported: ContextVar[list[str] | None] = ContextVar("reported", default=None)


class reported:  # noqa: N801 - a context manager, three times as fast as a generator
    """Collect the positions of the writes that this task runs within the context, in their order."""

    __slots__ = ("_token",)

    def __enter__(self) -> list[str]:
        positions: list[str] = []
        self._token = _reported.set(positions)
        return positions

    def __exit__(self, *_: object) -> None:
        _reported.reset(self._token)


def report(position: str | None) -> None:
    """Report the position of a write; None: it changed nothing."""
    positions = _reported.get()
    if positions is not None and position is not None:
        positions.append(position)


def not_included(position: str) -> WaitTimedOut:
    """Return the error of a read whose wait has timed out."""
    return WaitTimedOut(
        f'the position "{position[:100]}" is not included after {AT_LEAST_S:g} seconds',
        hint="Has the writer committed, and does a daemon run? Try again, or read without at_least.",
        code="ZC402",
    )


class Positions:
    """The positions of a client's writes, some of which are made at the same time."""

    def __init__(self) -> None:
        self.last: tuple[str, ...] = ()
        """The position of the last write, and those of writes that had not ended when it began."""

    def __str__(self) -> str:
        return ",".join(self.last)

    def add(self, positions: Sequence[str], begun_after: tuple[str, ...]) -> None:
        """Add the positions of a call that began after ``last`` was ``begun_after``, and so includes those positions."""
        if positions:
            self.last = (*(one for one in self.last if one not in begun_after), positions[-1])
