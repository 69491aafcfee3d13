"""Pages: every list has pages, in the same way in every layer.

A list is ordered by the fields ``page_by`` of its rows, which no two rows share. The parameter ``after`` has the values
of these fields in the last row of the previous page (``''`` for null), and the next page starts after it. So rows that
appear or disappear between two pages do not affect other rows: none is skipped, none is repeated. Outside of the
database, the position is an opaque cursor.

A page also ends when its rows exceed ``PAGE_BYTES`` as text, after at least one row. So a page of large values is
short, and has a cursor like any other.

On failure: a malformed cursor, or a cursor of another list, raises ``InvalidArgument``. The server deliberately keeps
no state and takes no snapshot: a row that changes its position between two pages may be in both or in neither.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

import msgspec
from msgspec.structs import replace

from coordinator.errors import InvalidArgument
from coordinator.model.operation import Operation, Paged

__all__ = ["PAGE_BYTES", "Page", "after_last", "cursor_of", "page_of", "place_of", "walk"]

PAGE_BYTES = 1 << 20

R = TypeVar("R")


class Page(list[R]):
    """Rows, and the ``cursor`` of the next page; None on the last page. ``cut``: it ended because of its size, not its limit."""

    cursor: str | None = None
    cut: bool = False


def page_of(operation: Operation[list[R]], rows: list[R], *, waited: bool = False) -> Page[R]:
    """Make a page from an operation's rows. A full page has a cursor even if no rows follow; so has a page that ended because of its size.

    With ``waited``, so has every page with rows of a list that grows at its end: the next call waits for new rows.
    """
    page = Page(rows)
    page.cut = isinstance(rows, Page) and rows.cut
    follows = waited and operation.grows and bool(rows)
    if operation.page_by and (follows or page.cut or len(rows) >= cast("Paged", operation).limit):
        page.cursor = cursor_of(type(operation), after_last(operation, rows))
    return page


def after_last(operation: Operation[list[R]], rows: list[R]) -> list[str]:
    """Return the position of an operation's last row, after which the next page begins."""
    fields = (getattr(rows[-1], name) for name in operation.page_by)
    return ["" if field is None else str(field) for field in fields]


def cursor_of(operation: type[Operation[Any]], place: list[str]) -> str:
    """Encode a position in an operation's list as a cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode([operation.function, *place])).decode().rstrip("=")


def place_of(operation: type[Operation[Any]], cursor: str) -> list[str]:
    """Decode a cursor of an operation's list. If the list is in the order of a number, that number of a row is a cursor, too.

    Without the epoch (``12`` instead of ``1a2b3c4d.12``), a number of a log matches an entry of any epoch.

    Raises: ``InvalidArgument``.
    """
    numbered = operation.page_by[-1:] == ("seq",)
    if numbered and (number := re.fullmatch(r"(?:([0-9a-f]{8})\.)?([0-9]{1,18})", cursor, re.ASCII)):
        epoch, seq = number.groups(default="")
        if "epoch" in operation.page_by or not epoch:
            return [seq] if operation.page_by == ("seq",) else [epoch, seq]
    try:
        decoded = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        function, *place = msgspec.json.decode(decoded, type=list[str])
    except (ValueError, msgspec.DecodeError):
        function, place = "", []
    if function != operation.function or len(place) != len(operation.page_by):
        raise InvalidArgument(
            f'"{cursor[:100]}" is not a cursor of this list',
            hint="Pass the cursor of the previous page"
            + (", or the number of the last row that was read." if numbered else "."),
            code="ZC103",
        )
    return place


async def walk(
    run: Callable[[Any], Awaitable[list[R]]], operation: Operation[list[R]], max_rows: int | None = None
) -> AsyncIterator[Page[R]]:
    """Yield the pages of a list, up to ``max_rows`` rows in all."""
    left = max_rows
    while True:
        if left is not None:
            operation = replace(operation, limit=min(left, cast("Paged", operation).limit))
        page = page_of(operation, await run(operation))
        yield page
        if left is not None:
            left -= len(page)
        if page.cursor is None or left == 0:
            return
        operation = replace(operation, after=place_of(type(operation), page.cursor))
