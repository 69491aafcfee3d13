"""Operations: calls of SQL functions. A module is a noun, and a class in it is a verb."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from coordinator.model.operation import Operation

__all__ = ["every"]


@cache
def every() -> tuple[type[Operation[Any]], ...]:
    """Return every operation, in the order of their functions' names."""
    return tuple(sorted(_found(), key=lambda kind: kind.function))


def _found() -> Iterator[type[Operation[Any]]]:
    import importlib  # noqa: PLC0415 - not needed by short programs that know their operations
    import pkgutil  # noqa: PLC0415

    for module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Operation) and value.__module__ == module.name:
                yield value
