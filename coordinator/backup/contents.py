"""The contents of the schema: a row count and a checksum for each table, and the state of sequences.

A checksum is the sum of a hash of each row's text, so it does not depend on the order of rows, and the server computes
it with parallel workers. Equal rows add up instead of cancelling each other out. The hash is the one for PostgreSQL's
hash partitions, which no release may change.

Sequences do not belong to snapshots. After a restore, the sequences that are compared must have a value between those
at the begin and the end of the dump.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from coordinator.db.connection import mapped_errors
from coordinator.db.single import Connection
from coordinator.errors import ConfigurationError
from coordinator.model.backup import Manifest, TableSum

__all__ = ["COMMIT_POINT", "UNBOUNDED_S", "differences", "sentence", "sequences", "settle", "sizes", "tables"]

UNBOUNDED_S = 30 * 86_400.0
COMMIT_POINT = "schema_files"  # restored last: without its rows, no daemon uses the schema
STATES = {"epoch_mark", "relay_bell"}  # not compared
MAX_DIFFERENCES = 20

_SIZES = """
select c.relname, pg_table_size(c.oid) from pg_class c
where c.relnamespace = 'coordinator'::regnamespace and c.relkind = 'r' order by 2 desc, 1
"""
_SUM = """
select count(*), coalesce(sum(hashtextextended(every_row::text collate "C", 0)), 0)::text from only coordinator.{} every_row
"""
_SEQUENCES = "select sequencename, last_value from pg_sequences where schemaname = 'coordinator' order by 1"
_SETTINGS = (
    "set statement_timeout = 0",
    "set idle_in_transaction_session_timeout = 0",
    "set extra_float_digits = 1",
    "set bytea_output = 'hex'",
    "set jit = off",
)


async def settle(connection: Connection) -> None:
    """Let a session take its time, and write values as every other one does.

    Raises: ``ConfigurationError`` behind a pooler, which hands sessions with their locks and snapshots to others.
    """
    with mapped_errors():
        if await connection.fetchval("select current_setting('coordinator.pinned', true) is distinct from 'on'"):
            raise ConfigurationError(
                "the address leads to a pooler; backups need sessions of the server itself",
                hint="Give the server's address: --url, or COORDINATOR_DIRECT_URL.",
            )
        for statement in _SETTINGS:
            await connection.execute(statement)


async def sizes(connection: Connection) -> dict[str, int]:
    """Return the size of each table, in bytes, largest first."""
    with mapped_errors():
        return {row[0]: row[1] for row in await connection.fetch(_SIZES, timeout=UNBOUNDED_S)}


async def tables(
    connection: Connection, names: Collection[str], report: Callable[[str], None] = lambda _: None
) -> dict[str, TableSum]:
    """Return the contents of each table, in the snapshot of the connection's transaction; pass the name of each finished table to ``report``."""
    found: dict[str, TableSum] = {}
    with mapped_errors():
        for name in names:
            quoted = '"' + name.replace('"', '""') + '"'
            row = await connection.fetchrow(_SUM.format(quoted), timeout=UNBOUNDED_S)
            assert row is not None  # noqa: S101 - an aggregate
            found[name] = TableSum(row[0], row[1])
            report(name)
    return found


async def sequences(connection: Connection) -> dict[str, int | None]:
    """Return the last value of each sequence; None: none was issued."""
    with mapped_errors():
        return {row[0]: row[1] for row in await connection.fetch(_SEQUENCES, timeout=UNBOUNDED_S)}


async def differences(
    connection: Connection,
    manifest: Manifest,
    *,
    apart_from: Collection[str] = (),
    report: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Compare a database with a manifest, except for the rows of some tables; return the differences as sentences."""
    there = await sizes(connection)
    expected = {name: table for name, table in manifest.tables.items() if name not in apart_from}
    wrong = [f"table {name} is missing" for name in manifest.tables.keys() - there.keys()]
    wrong += [
        f"there is a table {name}, which the backup did not have" for name in there.keys() - manifest.tables.keys()
    ]
    wrong += _astray(await sequences(connection), manifest.sequences)
    found = await tables(connection, [name for name in there if name in expected], report)
    for name, table in found.items():
        if table.rows != expected[name].rows:
            wrong.append(f"table {name} has {table.rows} rows instead of {expected[name].rows}")
        elif table.checksum != expected[name].checksum:
            wrong.append(f"the {table.rows} rows of table {name} have another checksum")
    return sorted(wrong)


def _astray(found: Mapping[str, int | None], expected: Mapping[str, tuple[int | None, int | None]]) -> list[str]:
    wrong = [f"sequence {name} is missing" for name in expected.keys() - found.keys()]
    for name in expected.keys() & found.keys() - STATES:
        low, high = (-1 << 63 if value is None else value for value in expected[name])
        value = -1 << 63 if (last := found[name]) is None else last
        if not low <= value <= high:
            wrong.append(
                f"sequence {name} is at {last}, which is not between {expected[name][0]} and {expected[name][1]}"
            )
    return wrong


def sentence(wrong: Collection[str]) -> str:
    """Join differences; beyond the first few, only their number."""
    shown = list(wrong)[:MAX_DIFFERENCES]
    return "; ".join(shown) + (f"; and {len(wrong) - len(shown)} more" if len(wrong) > len(shown) else "")
