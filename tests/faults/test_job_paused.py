"""A worker is stopped by the operating system past the end of its agent; then it tries every verb, on every way."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from tests.daemon import Daemon, opened
from tests.faults.job_pauser import JOBS
from tests.forked import Forked
from tests.sidecar.conftest import Sidecar
from tests.waiting import until, until_stopped

STALE = dict.fromkeys(["complete", "fail", "fail for good", "progress", "snooze", "release", "assert"], "ZC320")
ROWS = "select to_jsonb(r) from coordinator.jobs_running r order by id"
ENDED = "select to_jsonb(e) from coordinator.jobs_ended e order by id"


@asynccontextmanager
async def address(way: str, database_url: str) -> AsyncIterator[str]:
    """Run a daemon, and return the address of that way to the database."""
    with Daemon(database_url) as daemon:
        if way != "sidecar":
            yield database_url if way == "sql" else (await daemon.ready()).url
            return
        sidecar = Sidecar(database_url, "--agent", "another")
        try:
            yield (await sidecar.started()).url
        finally:
            sidecar.close()


@pytest.mark.parametrize("way", ["sql", "daemon", "sidecar"])
async def test_a_worker_that_returns_after_its_agent_ended_changes_nothing_by_any_verb(
    database_url: str, way: str
) -> None:
    async with opened(database_url) as connection, address(way, database_url) as url:
        await connection.execute(
            "select coordinator.job_enqueue('default', 'work', p_backoff => '0 seconds') from generate_series(1, $1)",
            JOBS,
        )
        with Forked("tests.faults.job_pauser", url, stdout=subprocess.PIPE, text=True) as paused:
            try:
                await until_stopped(paused.pid)
                await connection.execute("update coordinator.agents set expires_at = now() where name = 'pauser'")
                agent = await connection.fetchval(
                    "select id from coordinator.agent_register('default', 'next', p_job_types => '{work}', p_ttl => '1 hour')"
                )
                taken: list[tuple[object, int]] = []

                async def rescued() -> bool:
                    rows = await connection.fetch(
                        "select id, fence from coordinator.job_claim('default', $1, 100)", agent
                    )
                    taken.extend((row["id"], row["fence"]) for row in rows)
                    return len(taken) == JOBS

                await until(rescued, "the jobs were rescued, and another worker has them", every_s=0.1)
                job, fence = taken[0]
                await connection.execute("select coordinator.job_complete('default', $1, $2, $3)", job, agent, fence)
                before = await connection.fetch(ROWS), await connection.fetch(ENDED)
                paused.send_signal(signal.SIGCONT)
                codes = msgspec.json.decode((await anyio.to_thread.run_sync(paused.communicate))[0])
            finally:
                paused.kill()
        assert codes == STALE | {"claim": "ZC202", "reconcile": "ZC202"}
        assert (await connection.fetch(ROWS), await connection.fetch(ENDED)) == before
