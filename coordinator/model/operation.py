"""An operation: its parameters are a Struct's fields, its answer the Struct's type argument.

``class Set(Operation[Signal])`` is written once; the executor over PostgreSQL calls the SQL function of that name with
the fields as ``p_…`` parameters, and every other face is derived from the same fields. A test holds names, order and
defaults against the database's catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

import msgspec

from coordinator.model.lease import LeaseChange

__all__ = ["Json", "Operation", "Shape"]

R = TypeVar("R")

Json = None | bool | int | float | str | list[Any] | dict[str, Any]


class Shape(Enum):
    """How many rows of what an operation answers with."""

    ONE = "one row as a Struct"
    MANY = "rows as a list of Structs"
    SCALAR = "one value"


class Operation(msgspec.Struct, Generic[R], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call of one SQL function; an instance holds the call's parameters.

    ``function`` is the SQL function without its schema, ``<noun>_<verb>``. ``reads`` says that it changes nothing: it
    may be repeated after a lost answer. ``internal`` keeps it from faces other than the daemon's own loops.

    For HTTP: ``route`` is a read's path where it is not the usual one (a name in braces at its end is a parameter).
    ``page_by`` makes it a list that comes in pages: the fields of the rows by which they are ordered, no two alike (see
    ``model.page``). ``woken_by`` are topics of the events that can give an answer to an operation that has none yet, and
    may be repeated until it has: it can be waited for.
    """

    function: ClassVar[str]
    reads: ClassVar[bool] = False
    internal: ClassVar[bool] = False
    route: ClassVar[str | None] = None
    page_by: ClassVar[tuple[str, ...]] = ()
    woken_by: ClassVar[tuple[str, ...]] = ()

    def concerned_by(self, data: dict[str, Any]) -> bool:  # noqa: ARG002 - the usual case
        """Tell whether an event of ``woken_by`` with this data can matter; a wrong yes costs one repetition."""
        return True

    def leases(self, result: R) -> Iterable[LeaseChange]:  # noqa: ARG002 - the usual case
        """Yield what this call, answered with ``result``, changed in the leases of its caller."""
        return ()

    @classmethod
    def answer(cls) -> tuple[Shape, Any]:
        """Tell the shape of the answer and the type of its rows or value."""
        base = next(b for b in cls.__orig_bases__ if get_origin(b) is Operation)  # type: ignore[attr-defined]
        (result,) = get_args(base)
        if get_origin(result) is list:
            (row,) = get_args(result)
            if isinstance(row, type) and issubclass(row, msgspec.Struct):
                return Shape.MANY, row
        if isinstance(result, type) and issubclass(result, msgspec.Struct):
            return Shape.ONE, result
        return Shape.SCALAR, result
