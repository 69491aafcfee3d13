"""Windows of a conversation among many messages, and what an append pays to find what a message needs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from statistics import median
from typing import Any

import asyncpg

from bench.place import Options, Place, fresh
from bench.report import Table, load, percentile, ratio

__all__ = ["run"]

FEW = 10_000
CONVERSATION = 1_000  # messages
CALLS = 200
APPENDS = 300

LOADERS = 2
HEADERS = """
with session as (
  insert into coordinator.sessions (project_id, key, actor, created_at, updated_at)
  select p.id, 'c' || n, 'bench', now(), now() from coordinator.projects p, generate_series(1, $1::integer) n where p.name = $2
  returning id, project_id, key)
insert into coordinator.logs (project_id, kind, key, session_id, last_seq, count, epoch, updated_at)
select project_id, 'message', key, id, $3::integer, $3::integer, 0, now() from session"""
# As concurrent agents write them: the messages of a conversation are far apart.
FILL = """
insert into coordinator.entries (log_id, seq, role, tokens, epoch, needs_seq, links, actor, created_at, data)
select l.id, n, case n % 4 when 0 then 'user' when 2 then 'tool' else 'assistant' end, 20 + n * 7 % 100, 0,
       case n % 4 when 2 then n - 1 end, case n % 4 when 1 then array['+call_' || n] when 2 then array['-call_' || n - 1] end, 'bench', now(),
       json_build_object('role', case n % 4 when 0 then 'user' when 2 then 'tool' else 'assistant' end, 'content', repeat('word ', 80))
from (values ($2::integer)) v (n),
     (select l.id from coordinator.logs l join coordinator.projects p on p.id = l.project_id where p.name = $1 order by l.id) l"""
WINDOW = "select seq, role, data from coordinator.message_window($1, $2, {})"
WINDOWS = {
    "the last 20": ("p_last => 20", 2.0),
    "5,000 tokens": ("p_tokens => 5000", 5.0),
    "5,000 tokens, complete": ("p_tokens => 5000, p_complete => true", None),
}
APPEND = "select last_seq from coordinator.log_append($1, $2, $3, $4::json, p_session => $3)"


async def run(options: Options) -> AsyncIterator[Table]:
    """Fill a cluster with few and many messages, and measure both."""
    async with fresh(options) as place:
        connection = await place.connect()
        try:
            await connection.execute(
                "set statement_timeout = 0; set lock_timeout = 0"
            )  # it may have to wait for autovacuum
            for project, count in (("few", FEW), ("many", options.entries)):
                await connection.execute("select coordinator.project_create($1)", project)
                await connection.execute(HEADERS, count // CONVERSATION, project, CONVERSATION)
                await asyncio.gather(*(_fill(place, project, first) for first in range(LOADERS)))
            await connection.execute(
                "vacuum analyze coordinator.entries, coordinator.logs, coordinator.sessions", timeout=3600
            )
            yield await _windows(connection, options)
            yield await _appends(connection)
        finally:
            await connection.close()


async def _fill(place: Place, project: str, first: int) -> None:
    """Write each second message of all conversations, or whatever the share of a loader is."""
    connection = await place.connect()
    try:
        await connection.execute("set synchronous_commit = off")
        await connection.execute("set statement_timeout = 0")
        for number in range(first, CONVERSATION, LOADERS):
            await connection.execute(FILL, project, number + 1, timeout=600)
    finally:
        await connection.close()


async def _windows(connection: asyncpg.Connection, options: Options) -> Table:
    rows = []
    for label, (limits, target) in WINDOWS.items():
        statement = await connection.prepare(WINDOW.format(limits))
        times: dict[str, list[float]] = {"few": [], "many": []}
        for number in range(CALLS):
            for project, count in (("few", FEW), ("many", options.entries)):
                key = f"c{number * 7919 % (count // CONVERSATION) + 1}"
                times[project].append(await _timed(statement, project, key))
        p95 = percentile(times["many"], 95)
        slower = ratio(times["many"], times["few"])
        rows.append([
            label, f"{median(times['few']):.2f}", f"{median(times['many']):.2f}", f"{p95:.2f}", f"{slower:.1f}",
            "" if target is None else f"p95 ≤ {target:g} ms: {'met' if p95 <= target else 'MISSED'}",
        ])  # fmt: skip
    columns = ["window", f"p50 at {FEW:,}, ms", f"p50 at {options.entries:,}, ms", "p95, ms", "p50 to p50", "target"]
    note = f"{CALLS} calls each, by bare asyncpg, of conversations of {CONVERSATION:,} messages; load average at the end {load():.1f}."
    return Table("Windows of a conversation", columns, rows, [note])


async def _appends(connection: asyncpg.Connection) -> Table:
    statement = await connection.prepare(APPEND)
    text = "It rains in Paris, and will do so until tomorrow evening."
    pairs: dict[str, list[Any]] = {
        "plain": [{"role": "user", "content": text}, {"role": "assistant", "content": text}],
        "items of Responses": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
        ],
        "a call and its result": [
            {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": text},
        ],
    }  # fmt: skip
    rows = []
    for label, pair in pairs.items():
        entries = json.dumps([{"data": one} for one in pair]).encode()
        times: dict[str, list[float]] = {"note": [], "message": []}
        for number in range(APPENDS):
            for kind, each in times.items():
                each.append(await _timed(statement, "few", kind, f"{kind}/{number % 10}", entries))
        found = {kind: median(each) for kind, each in times.items()}
        rows.append([
            label, f"{found['note']:.2f}", f"{found['message']:.2f}", f"{ratio(times['message'], times['note']):.2f}", "for information",
        ])  # fmt: skip
    note = f"{APPENDS} appends of two entries each, alternately to a log of another kind, whose entries have no links."
    return Table(
        "Appends of two messages with links",
        ["messages", "p50 as notes, ms", "p50, ms", "to notes", "target"],
        rows,
        [note],
    )


async def _timed(statement: asyncpg.prepared_stmt.PreparedStatement, *arguments: Any) -> float:
    began = time.perf_counter()
    await statement.fetch(*arguments)
    return (time.perf_counter() - began) * 1000
