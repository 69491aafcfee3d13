"""Listings: a list as the client returns it, page by page or whole.

    page = await client.signals.list("build/", limit=100)      # one page; the next one with after=page.cursor
    async for signal in client.signals.list("build/"): ...     # all of them, fetched as they are needed

Each page is read separately: ``model.page`` explains what this means while rows appear or disappear. Nothing is read before
the first step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from coordinator.client.caller import Caller
from coordinator.model.operation import Operation
from coordinator.model.page import Page, page_of, place_of, walk

__all__ = ["PAGE", "Listing"]

PAGE = 1000  # rows

R = TypeVar("R")


class Listing(Generic[R]):
    """One page when awaited; all rows when iterated over, ``limit`` at a time. Both can be repeated.

    Raises, when awaited and at each step: ``InvalidArgument`` for a cursor of another list, and what the operation raises.
    """

    def __init__(
        self,
        caller: Caller,
        operation: Operation[list[R]] | Callable[[], Awaitable[Operation[list[R]]]],
        after: str | None,
    ) -> None:
        self._caller = caller
        self._operation = operation
        self._after = after

    def __await__(self) -> Generator[Any, Any, Page[R]]:
        """Read one page."""
        return self._page().__await__()

    async def __aiter__(self) -> AsyncIterator[R]:
        """Read page after page."""
        async for page in walk(self._caller.run, await self._first()):
            for row in page:
                yield row

    async def _page(self) -> Page[R]:
        operation = await self._first()
        return page_of(operation, await self._caller.run(operation))

    async def _first(self) -> Operation[list[R]]:
        """Make the operation of the first page."""
        operation = self._operation if isinstance(self._operation, Operation) else await self._operation()
        return operation if self._after is None else replace(operation, after=place_of(type(operation), self._after))
