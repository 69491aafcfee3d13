"""The progress of a backup, verification or restore, in bytes of tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["Advance", "OnProgress"]

OnProgress = Callable[[str, int, int], None]
"""Takes what is being done ("dumping"), how many bytes of tables are done, and how many there are."""


class Advance:
    """Adds up the sizes of the tables that are done."""

    def __init__(self, report: OnProgress, what: str, sizes: Mapping[str, int]) -> None:
        self._report = report
        self._what = what
        self._sizes = {**sizes}
        self._total = sum(sizes.values())
        self._done = 0
        report(what, 0, self._total)

    def __call__(self, table: str) -> None:
        """Note that a table is done."""
        self._done += self._sizes.pop(table, 0)
        self._report(self._what, self._done, self._total)
