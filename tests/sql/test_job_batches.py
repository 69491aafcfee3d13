"""What a call does for a batch of jobs grows with their number, not with its square."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.daemon import opened
from tests.waiting import until

JOBS = 300
ROWS_A_JOB = 20  # in one step of a plan; if each job is compared with each other, there are 300
SETTINGS = {
    "auto_explain.log_format": "json",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_min_duration": "0",
    "client_min_messages": "log",
}
CLAIM = (
    "select id, fence from coordinator.job_claim('default', $1, $2, p_finished => $3, p_fences => $4, p_results => $5)"
)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@asynccontextmanager
async def explained(connection: asyncpg.Connection, query: str) -> AsyncIterator[None]:
    """Check that no step of any statement of the block read many rows for each job; ``query`` is in the last statement."""
    texts: list[str] = []
    connection.add_log_listener(lambda _, message: texts.append(message.message))
    for name, value in SETTINGS.items():
        await connection.execute("select set_config($1, $2, false)", name, value)
    yield
    await connection.execute("set client_min_messages = notice")
    await until(lambda: any(query in text for text in texts), "the plans have arrived")
    plans = [json.loads(text.partition("plan:")[2]) for text in texts if "plan:" in text]
    assert len(plans) > 3, "the statements of the functions are not among them"
    for plan in plans:
        for node in nodes(plan["Plan"]):
            read = (
                node["Actual Rows"] + node.get("Rows Removed by Join Filter", 0) + node.get("Rows Removed by Filter", 0)
            )
            assert read * node["Actual Loops"] <= ROWS_A_JOB * JOBS, (plan["Query Text"], node)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with opened(database_url) as connection:
        try:
            await connection.execute("load 'auto_explain'")
        except asyncpg.UndefinedFileError:
            pytest.skip("the package of this server has no auto_explain")
        yield connection


KINDS: dict[str, dict[str, object]] = {
    "plain": {},
    "scheduled": {"delay": 60},
    "with keys in a fair queue": {"queue": "fair"},
    "with dedupe keys": {"on_duplicate": "skip"},
}


def batch(kind: str, first: int = 0) -> list[dict[str, object]]:
    jobs = [{"type": "work", "key": f"k{n % 50}", **KINDS[kind]} for n in range(first, first + JOBS)]
    if "on_duplicate" in KINDS[kind]:
        for number, job in enumerate(jobs):
            job["dedupe_key"] = f"d{(first + number) // 2}"  # each is in the batch twice
    return jobs


@pytest.mark.parametrize("kind", KINDS)
async def test_enqueueing_a_batch_compares_no_job_with_every_other(connection: asyncpg.Connection, kind: str) -> None:
    await connection.execute("select coordinator.queue_set('default', 'fair', p_fair_by => 'key')")
    enqueue = "select created from coordinator.job_enqueue_many('default', $1)"
    for first in (0, JOBS):  # the plans of the first call are made while the tables are empty
        async with explained(connection, enqueue):
            await connection.fetch(enqueue, batch(kind, first))
    if kind == "with dedupe keys":
        async with explained(connection, enqueue):
            assert not any(row["created"] for row in await connection.fetch(enqueue, batch(kind)))


@pytest.mark.parametrize("queue", ["default", "fair"])
async def test_claiming_and_finishing_a_batch_compares_no_job_with_every_other(
    connection: asyncpg.Connection, queue: str
) -> None:
    await connection.execute("select coordinator.queue_set('default', 'fair', p_fair_by => 'key')")
    agent = await connection.fetchval(
        "select id from coordinator.agent_register('default', 'worker', p_job_types => '{work}', p_ttl => '1 hour')"
    )
    for _ in range(3):
        await connection.fetch(
            "select id from coordinator.job_enqueue_many('default', $1)",
            [{"type": "work", "queue": queue, "key": f"k{n % 50}"} for n in range(JOBS)],
        )
    ids: list[UUID] = []
    fences: list[int] = []
    for _ in range(3):
        async with explained(connection, CLAIM):
            rows = await connection.fetch(CLAIM, agent, JOBS, ids, fences, [1] * len(ids))
        ids, fences = [row["id"] for row in rows], [row["fence"] for row in rows]
        assert len(ids) == JOBS
