"""Pages: lists in parts, one after the other, the same for every list on every floor.

A list is ordered by fields of its rows, ``page_by``, no two rows alike; the parameter ``after`` has their values in the last
row of the page before (``''`` for null), and what comes is what is ordered behind them. So rows that come and go meanwhile
move no other over a border: none is lost, none comes twice. Outside, that place is an opaque cursor.

On failure: what is no cursor, or one of another list, is ``InvalidArgument``. It deliberately keeps no state at the server, and
takes no snapshot: a row that changes its place between two pages may be in both or in none.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from coordinator.errors import InvalidArgument
from coordinator.model.operation import Operation

__all__ = ["Page", "cursor_of", "page_of", "place_of", "walk"]

R = TypeVar("R")


class Page(list[R]):
    """Rows, and the ``cursor`` to go on after them with; none behind the last page."""

    cursor: str | None = None


def page_of(operation: Operation[list[R]], rows: list[R]) -> Page[R]:
    """Make a page of an operation's answer. A full one has a cursor, though nothing may come behind it."""
    page = Page(rows)
    if operation.page_by and len(rows) >= getattr(operation, "limit"):  # noqa: B009 - what has page_by has a limit
        fields = (getattr(rows[-1], name) for name in operation.page_by)
        page.cursor = cursor_of(type(operation), ["" if field is None else str(field) for field in fields])
    return page


def cursor_of(operation: type[Operation[Any]], place: list[str]) -> str:
    """Write a place in an operation's list as a cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode([operation.function, *place])).decode().rstrip("=")


def place_of(operation: type[Operation[Any]], cursor: str) -> list[str]:
    """Read a cursor of an operation's list.

    Raises: ``InvalidArgument`` where it is none.
    """
    try:
        decoded = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        function, *place = msgspec.json.decode(decoded, type=list[str])
    except (ValueError, msgspec.DecodeError):
        function, place = "", []
    if function != operation.function or len(place) != len(operation.page_by):
        raise InvalidArgument(
            f'"{cursor[:100]}" is no cursor of this list', hint="Give the cursor of the page before.", code="ZC103"
        )
    return place


async def walk(
    run: Callable[[Any], Awaitable[list[R]]], operation: Operation[list[R]], most: int | None = None
) -> AsyncIterator[Page[R]]:
    """Yield page after page of a list, up to its last or to ``most`` rows in all."""
    left = most
    while True:
        if left is not None:
            operation = replace(operation, limit=min(left, getattr(operation, "limit")))  # noqa: B009
        page = page_of(operation, await run(operation))
        yield page
        if left is not None:
            left -= len(page)
        if page.cursor is None or left == 0:
            return
        operation = replace(operation, after=place_of(type(operation), page.cursor))
