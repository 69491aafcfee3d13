"""Reads recac's databases: PostgreSQL, or a SQLite file. It changes nothing in them.

Early versions lack the column ``project_id`` and some tables.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from coordinator.config import Config
from coordinator.errors import InvalidArgument
from coordinator.model import address

if TYPE_CHECKING:
    import sqlite3

    from coordinator.db.single import Connection

__all__ = ["OldTables", "reading"]

ROWS = 500  # fetched at once


class OldTables(Protocol):
    """The tables of a database."""

    async def columns(self, table: str) -> Sequence[str]:
        """Return the columns of a table; none if there is no such table."""

    def rows(self, query: str) -> AsyncIterator[Sequence[Any]]:
        """Return the rows of a query, a few at a time."""


@asynccontextmanager
async def reading(place: str, config: Config) -> AsyncIterator[OldTables]:
    """Open the database at an address or in a file.

    Raises: ``InvalidArgument`` if it is neither; ``DatabaseUnavailable``, ``ConfigurationError``.
    """
    if address.is_database(place):
        from coordinator.db.connection import mapped_errors  # noqa: PLC0415 - slow to import
        from coordinator.db.single import connected  # noqa: PLC0415

        async with connected(place, config) as connection:
            with mapped_errors():
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    yield _PostgresTables(connection)
        return
    if "://" in place:
        raise InvalidArgument(
            f'"{place.partition("://")[0]}://…" is not the address of a PostgreSQL database',
            hint="Give postgresql://user@host:5432/database, or the path of a SQLite file.",
        )
    with _opened(Path(place)) as tables:
        yield tables


@contextmanager
def _opened(path: Path) -> Iterator[OldTables]:
    import sqlite3  # noqa: PLC0415 - slow to import

    if not path.is_file():
        raise InvalidArgument(f"there is no file {path}", hint="Give the path of recac's .recac.db.")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as opened:
            opened.text_factory = lambda text: text.decode("utf-8", "replace")
            yield _SqliteTables(opened)
    except sqlite3.DatabaseError as error:
        raise InvalidArgument(
            f"{path} cannot be read as a SQLite database: {error}",
            hint="Is it the right file? Stop recac, and try again.",
        ) from error


class _PostgresTables:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def columns(self, table: str) -> Sequence[str]:
        rows = await self._connection.fetch(
            "select column_name from information_schema.columns where table_schema = 'public' and table_name = $1",
            table,
        )
        return [row[0] for row in rows]

    async def rows(self, query: str) -> AsyncIterator[Sequence[Any]]:
        async for row in self._connection.cursor(query, prefetch=ROWS):
            yield row


class _SqliteTables:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def columns(self, table: str) -> Sequence[str]:
        return [row[1] for row in self._connection.execute(f"pragma table_info({table})")]

    async def rows(self, query: str) -> AsyncIterator[Sequence[Any]]:
        cursor = self._connection.execute(query)
        while rows := cursor.fetchmany(ROWS):
            for row in rows:
                yield row
