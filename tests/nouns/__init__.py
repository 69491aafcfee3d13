"""What the tests that see every noun have to know of each, one file per noun. A noun says only what applies to it:

``drive(tx)`` makes every change of the noun at least once, so that each of its events is emitted.
``populate(connection, project, known)`` makes one of the noun in a project; ``known`` gets what arguments refer to, by field.
``ARGUMENTS`` has valid arguments there in SQL, by parameter, or by function and parameter: see `tests.populated`.
``LIMITS`` has, by limit, statements that take a value as ``$1`` and must accept the limit and refuse the next value.
``PAGES`` has at least one `Pages` for each list.
``JSON`` has, by function, a call that takes JSON as ``$1``; ``JSON_UNREAD`` says why a function that takes JSON has none.
``NOT_IN_PYTHON`` and ``NOT_ON_THE_COMMAND_LINE`` say, by function, what serves instead of a method or a command.
``PYTHON_LACKS``, ``PYTHON_ADDS``, ``PYTHON_DEFAULTS``, ``OPTIONS_LACK`` and ``OPTIONS_ADD`` say, by function and parameter, why an interface differs from SQL;
``SPELLED`` has the other name of a parameter on the command line.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from coordinator.model.operation import Operation
from tests.conftest import Transaction

__all__ = ["LIMITS", "Known", "Pages", "each", "table"]

Known = dict[str, Any]


class Pages(NamedTuple):
    """A list with pages, what fills it, and the minimum number of rows that it then has."""

    fill: Callable[[Transaction], Awaitable[None]]
    operation: Operation[Any]
    least: int


_NOUNS = {
    module.name: importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)
}


def each(name: str) -> Iterator[tuple[str, Any]]:
    """Yield the value of this name in the file of each noun that has it, with the noun."""
    for noun, module in _NOUNS.items():
        if hasattr(module, name):
            yield noun, getattr(module, name)


def table(name: str) -> dict[Any, Any]:
    """Return a table with the rows of all nouns, which must have different keys."""
    rows: dict[Any, Any] = {}
    for noun, its in each(name):
        twice = rows.keys() & its.keys()
        assert not twice, f"{name} of {noun} repeats {twice}"
        rows |= its
    return rows


LIMITS: dict[str, list[str]] = defaultdict(list)
for _, _limits in each("LIMITS"):
    for _limit, _statements in _limits.items():
        LIMITS[_limit] += _statements
