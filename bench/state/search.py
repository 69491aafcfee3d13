"""Search among many entries in 1,000 projects: rare, common and several words, and phrases; compared with ranking all matches."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from statistics import median

import asyncpg

from bench.place import Options, fresh
from bench.report import Table, load, percentile

__all__ = ["run"]

PROJECTS = 1000
CALLS = 30
TARGET_MS = 50.0
PHRASE_MS = 500.0
TIMES = 20.0

# Half of the entries in one project; 60 words each, of a vocabulary in which a few words are everywhere (Zipf).
FILL = """
with made as (
  select g, case when g % 2 = 0 then 1 else 2 + (g / 2) % $2::integer end as place,
         (select string_agg('w' || floor(power(50000, random()))::int, ' ') from generate_series(1, 60) n where g > 0) as content
  from generate_series($1::integer, $3::integer) g
), put as (
  insert into coordinator.documents (project_id, kind, key, version, epoch, actor, created_at, updated_at)
  select p.id, 'knowledge', 'k' || m.g, 1, 0, 'bench', now(), timestamptz '2026-01-01 00:00:00Z' + m.g * interval '1 second'
  from made m join coordinator.projects p on p.name = 'p' || m.place
  returning id, project_id, key, updated_at
), written as (
  insert into coordinator.document_versions (document_id, version, epoch, actor, written_at, value)
  select p.id, 1, 0, 'bench', now(),
         jsonb_build_object('title', 'Entry ' || m.g, 'content', m.content, 'language', 'english', 'metadata', '{}'::jsonb)
  from put p join made m on m.g = substr(p.key, 2)::integer
  returning document_id, value
)
insert into coordinator.document_words (document_id, project_id, kind, updated_at, words)
select p.id, p.project_id, 'knowledge', p.updated_at,
       coordinator.search_vector('english', coordinator.search_text('knowledge', w.value))
       || array_to_tsvector(array[coordinator.search_lexeme(p.project_id, 'knowledge'),
                                  coordinator.search_lexeme(p.project_id, 'knowledge', 'current', 'true')])
from put p join written w on w.document_id = p.id
"""

# What a search would be without the two paths: every match is ranked.
RANK_ALL = """
select d.key, r.rank, coordinator.search_snippet('english', 'knowledge', v.value, r.query)
from (select w.document_id, q.query, ts_rank(w.words, q.query) as rank
      from coordinator.document_words w, websearch_to_tsquery('english', $2) q (query)
      where w.words @@ q.query and w.project_id = (select id from coordinator.projects where name = $1)
      order by rank desc limit 20) r
join coordinator.documents d on d.id = r.document_id
join coordinator.document_versions v on v.document_id = d.id and v.version = d.version order by r.rank desc
"""
OURS = "select key, rank, snippet from coordinator.knowledge_search($1, $2)"

QUERIES = {
    "rare": "w40017",
    "medium": "w3001",
    "common": "w1",
    "two common": "w1 w2",
    "common and rare": "w1 w40017",
    "phrase of common": '"w1 w2"',
}


async def run(options: Options) -> AsyncIterator[Table]:
    """Fill a cluster, and measure."""
    async with fresh(options) as place:
        connection = await place.connect()
        try:
            await _fill(connection, options.entries)
            rows = [
                await _measured(connection, project, shape, words)
                for project in ("p1", "p7")
                for shape, words in QUERIES.items()
            ]
            size = await connection.fetchval(
                "select pg_size_pretty(pg_relation_size('coordinator.document_words_words_idx'))"
            )
        finally:
            await connection.close()
    yield Table(
        f"Search among {options.entries:,} entries in {PROJECTS:,} projects",
        ["entries", "words", "found", "p50 ms", "p95 ms", "rank all, p50 ms", "times faster", "target"],
        rows,
        [f"p1 has half of the entries. The index of words takes {size}. Load average at the end {load():.1f}."],
    )


async def _fill(connection: asyncpg.Connection, entries: int) -> None:
    await connection.execute("set synchronous_commit = off")
    await connection.execute("set statement_timeout = 0")
    await connection.execute(
        "select coordinator.project_create('p' || n) from generate_series(1, $1::integer) n", PROJECTS
    )
    step = 20_000
    for first in range(1, entries + 1, step):
        await connection.execute(FILL, first, PROJECTS - 1, min(first + step - 1, entries), timeout=600)
    for name in ("documents", "document_versions", "document_words"):
        await connection.execute(f"vacuum (analyze) coordinator.{name}", timeout=600)


async def _measured(connection: asyncpg.Connection, project: str, shape: str, words: str) -> list[str]:
    found = await connection.fetch(OURS, project, words)
    ours = [await _timed(connection, OURS, project, words) for _ in range(CALLS)]
    every = [await _timed(connection, RANK_ALL, project, words) for _ in range(5)]
    times = median(every) / median(ours)
    p95 = percentile(ours, 95)
    limit = PHRASE_MS if words.startswith('"') else TARGET_MS
    wanted = [f"p95 ≤ {limit:g} ms: {'met' if p95 <= limit else 'MISSED'}"]
    if (project, shape) == ("p1", "common"):
        wanted.append(f"≥ {TIMES:g} times: {'met' if times >= TIMES else 'MISSED'}")
    return [
        project,
        shape,
        f"{len(found)}",
        f"{median(ours):.1f}",
        f"{p95:.1f}",
        f"{median(every):.1f}",
        f"{times:.1f}",
        "; ".join(wanted),
    ]


async def _timed(connection: asyncpg.Connection, query: str, project: str, words: str) -> float:
    began = time.perf_counter()
    await connection.fetch(query, project, words, timeout=600)
    return (time.perf_counter() - began) * 1000
