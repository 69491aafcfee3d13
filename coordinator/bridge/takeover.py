"""``agent-bridge import-database``: imports the contents of recac's own database.

Guarantees: repeating it changes nothing, so an interrupted import can be run again. Observations have a name (``uid``),
and existing data of the coordinator is kept: a signal, a feature list or a specification there is newer. A row that the
coordinator refuses is reported, and the others are imported.

What it does not do: keep the times of rows. Signals that are not critical get a TTL of a day, like new ones.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from coordinator.bridge.agents import SPEC, acquire
from coordinator.bridge.bridge import Bridge, BridgeError, note, project_name, say
from coordinator.bridge.commands import set_signal
from coordinator.bridge.features import KEY, KIND, saved
from coordinator.bridge.sources import OldTables, reading
from coordinator.errors import Conflict, InvalidArgument
from coordinator.model.catalogue import LIMITS
from coordinator.model.json import text_of
from coordinator.model.operation import JsonText
from coordinator.operations import documents, logs

__all__ = ["import_database"]

BATCH = LIMITS["log_batch"]
BATCH_BYTES = 1 << 20
LONGEST_NAME = 200
SHOWN = 200  # characters of the name of a row

# Written by SQLite, or by Go: 2026-01-31 14:00:00.123456789 +0100 CET m=+0.1
_INSTANT = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)[ T](?P<time>\d\d:\d\d:\d\d)(?:\.\d+)? ?(?P<zone>Z|[+-]\d\d:?\d\d)?")


class _Count:
    """How many rows of a table were imported, already existed, and were refused."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.taken = self.there = self.refused = 0

    def refuse(self, row: str, reason: str) -> None:
        self.refused += 1
        shown = row if len(row) <= SHOWN else f"{row[:SHOWN]}…"
        note(f"Skipped: {self.what}: {shown}: {reason}")

    def __str__(self) -> str:
        refused = f", {self.refused} skipped" if self.refused else ""
        return f"{self.what}: {self.taken} imported, {self.there} already there{refused}"


async def import_database(bridge: Bridge, arguments: list[str]) -> None:
    """Import the tables of a database."""
    if len(arguments) != 1 or arguments[0].startswith("--"):
        raise BridgeError("usage: agent-bridge import-database <url/file>")
    counts = []
    async with reading(arguments[0], bridge.config) as tables:
        for table, take in TABLES.items():
            columns = await tables.columns(table)
            if not columns:
                continue
            count = _Count(table)
            project = "project_id" if "project_id" in columns else "null"
            await take(bridge, _named(bridge, tables, project), count)
            counts.append(count)
            note(str(count))
    if not counts:
        raise BridgeError(f"{_shown(arguments[0])} has none of recac's tables")
    refused = sum(count.refused for count in counts)
    say(
        f"Imported {sum(count.taken for count in counts)} rows; {sum(count.there for count in counts)} were there already."
    )
    if refused:
        raise BridgeError(f"{refused} rows were skipped; the lines above say why")


def _shown(place: str) -> str:
    from coordinator.model.address import without_password  # noqa: PLC0415

    return without_password(place) if "://" in place else place


Rows = Callable[[str, str], AsyncIterator[tuple[str, Sequence[Any]]]]


def _named(bridge: Bridge, tables: OldTables, project: str) -> Rows:
    """Return a function that yields the rows of a query, each with its project in the coordinator."""

    async def rows(columns: str, rest: str) -> AsyncIterator[tuple[str, Sequence[Any]]]:
        async for project_id, *row in tables.rows(f"select {project}, {columns} {rest}"):
            yield bridge.project if project_id is None else project_name(project_id), row

    return rows


async def _observations(bridge: Bridge, rows: Rows, count: _Count) -> None:
    """Append observations in the order of their ids, in batches for one agent of a project."""
    batch: list[dict[str, Any]] = []
    size = 0
    place = ("", "")

    async def flush() -> None:
        nonlocal batch, size
        if batch:
            await _append(bridge, place, batch, count)
            batch, size = [], 0

    query = "from observations order by 1, agent_id, id"
    async for project, (number, agent_id, value, at) in rows("id, agent_id, content, created_at", query):
        agent, content = _agent(agent_id), _text(value)
        if (project, agent) != place or len(batch) == BATCH or size > BATCH_BYTES:
            await flush()
            place = (project, agent)
        name = sha256(f"{agent}\0{at}\0{content}".encode()).hexdigest()[:16]
        batch.append({"data": content, "uid": f"recac-{number}-{name}"})
        size += len(content)
    await flush()


async def _append(bridge: Bridge, place: tuple[str, str], batch: list[dict[str, Any]], count: _Count) -> None:
    """Append a batch; if the coordinator refuses it, append its halves, until the faulty entry is found."""
    project, agent = place
    append = logs.Append(project=project, kind="observation", key=agent, entries=text_of(batch))
    try:
        receipt = await bridge.run(append)
    except InvalidArgument as error:
        if len(batch) == 1:
            count.refuse(str(batch[0]["uid"]), error.message)
            return
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            await _append(bridge, place, half, count)
        return
    count.taken += receipt.appended
    count.there += len(batch) - receipt.appended
    if (count.taken + count.there) % (20 * BATCH) < len(batch):
        note(str(count))


async def _signals(bridge: Bridge, rows: Rows, count: _Count) -> None:
    """Set signals that are not set; REJECTED first, because it clears others."""
    query = "from signals order by case when key = 'REJECTED' then 0 else 1 end, key"
    async for project, (key, value) in rows("key, value", query):
        await _put(bridge, set_signal(project, _text(key), _text(value), expect=0), _text(key), count)


async def _features(bridge: Bridge, rows: Rows, count: _Count) -> None:
    async for project, (content,) in rows("content", "from project_features"):
        try:
            text, _ = saved(_text(content).encode())
        except BridgeError as error:
            count.refuse(project, str(error))
            continue
        await _document(bridge, project, (KIND, KEY), text, count)


async def _specs(bridge: Bridge, rows: Rows, count: _Count) -> None:
    async for project, (content,) in rows("content", "from project_specs"):
        await _document(bridge, project, SPEC, text_of(_text(content)), count)


async def _document(bridge: Bridge, project: str, name: tuple[str, str], text: JsonText, count: _Count) -> None:
    kind, key = name
    await _put(bridge, documents.Put(project=project, kind=kind, key=key, value=text, expect=0), project, count)


async def _put(bridge: Bridge, operation: Any, row: str, count: _Count) -> None:
    try:
        await bridge.run(operation)
    except Conflict as error:
        if error.code == "ZC301":
            count.there += 1
        else:
            count.refuse(row, error.message)
    except InvalidArgument as error:
        count.refuse(row, error.message)
    else:
        count.taken += 1


async def _locks(bridge: Bridge, rows: Rows, count: _Count) -> None:
    """Acquire the locks that have not ended, for their agents; a lock that its agent already holds is renewed."""
    async for project, (path, agent, expires_at) in rows("path, agent_id, expires_at", "from file_locks order by path"):
        if not _later(expires_at):
            continue
        try:
            await acquire(bridge, project, f"path:{path}", _agent(agent))
        except (Conflict, InvalidArgument) as error:
            count.refuse(path, error.message)
        else:
            count.taken += 1


def _text(value: object) -> str:
    """Return a value as text; SQLite allows any type in any column."""
    match value:
        case None:
            return ""
        case bytes():
            return value.decode("utf-8", "replace")
    return str(value)


def _agent(value: object) -> str:
    """Return the name of an agent or, if it is not a valid name, always the same derived name."""
    name = _text(value)
    return name if name.isprintable() and name == name.strip() and 0 < len(name) <= LONGEST_NAME else project_name(name)


def _later(instant: object) -> bool:
    """Return whether an instant is in the future. Without a zone, it is UTC; an unreadable one counts as past."""
    if not isinstance(instant, datetime):
        written = _INSTANT.match(_text(instant))
        if written is None:
            return False
        try:
            instant = datetime.fromisoformat(f"{written['day']}T{written['time']}{written['zone'] or ''}")
        except ValueError:
            return False
    return instant.replace(tzinfo=instant.tzinfo or UTC) > datetime.now(UTC)


TABLES = {
    "observations": _observations,
    "signals": _signals,
    "project_features": _features,
    "project_specs": _specs,
    "file_locks": _locks,
}
