"""Backups: manifests and lists of backups."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["Backup", "BackupCheck", "Manifest", "StoredObjects", "TableSum"]

FORMAT = 1
PRODUCT = "coordinator backup"


class TableSum(msgspec.Struct, frozen=True):
    """The rows of a table and a checksum of them, whatever their order."""

    rows: int
    checksum: str


class StoredObjects(msgspec.Struct, frozen=True):
    """Contents of artifacts that are in an object store, and therefore not in the backup."""

    count: int
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is of, and what a restore of it must bring back. It is written last.

    What had been committed at ``started_at`` is in the backup. ``origin`` names the database for good: the server's system identifier and the
    database's id. ``restores_into`` is the oldest major version of PostgreSQL into which it can be restored. ``sequences`` has the value
    before the dump and the one after it; None: none was issued. ``compressed`` has the columns, with
    their tables, that are compressed with lz4 where the server can. ``files`` has the size of each file of the dump, in bytes.
    """

    product: str
    format: int
    backup: str
    program: str
    postgres: str
    pg_dump: str
    restores_into: int
    origin: str
    database: str
    encoding: str
    started_at: datetime
    ended_at: datetime
    migrations: list[str]
    tables: dict[str, TableSum]
    sequences: dict[str, tuple[int | None, int | None]]
    objects: dict[str, StoredObjects]
    compressed: list[tuple[str, str]]
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """Size of the dump."""
        return sum(self.files.values())

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables.values())


class BackupCheck(msgspec.Struct, frozen=True):
    """When a backup was restored elsewhere and compared, in which time (seconds), and what differed: None, nothing."""

    at: datetime
    seconds: float
    error: str | None = None


class Backup(msgspec.Struct, frozen=True):
    """A backup in a directory.

    ``status``: good, differs (a verification found so), damaged (a file is missing or cut off), renamed (its manifest has another name), or newer (this
    program does not know its format). ``fault`` says why it is not good. What only a manifest says is null if that cannot be read.
    """

    backup: str
    status: str
    started_at: datetime
    verified_at: datetime | None
    bytes: int | None
    rows: int | None
    database: str | None
    program: str | None
    postgres: str | None
    path: str
    fault: str | None = None
