"""What the tests of the catalogue need to know of each noun, one file per noun.

``drive(tx)`` makes every change of the noun at least once, so that each of its events is emitted. ``LIMITS`` has, by limit,
statements that take a value as ``$1`` and must accept the limit and refuse the next value.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Awaitable, Callable

from tests.conftest import Transaction

__all__ = ["DRIVERS", "LIMITS"]

DRIVERS: dict[str, Callable[[Transaction], Awaitable[None]]] = {}
LIMITS: dict[str, list[str]] = defaultdict(list)

for _module in pkgutil.iter_modules(__path__):
    _noun = importlib.import_module(f"{__name__}.{_module.name}")
    if hasattr(_noun, "drive"):
        DRIVERS[_module.name] = _noun.drive
    for _limit, _statements in getattr(_noun, "LIMITS", {}).items():
        LIMITS[_limit] += _statements
