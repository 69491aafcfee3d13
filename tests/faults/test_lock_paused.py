"""A holder is stopped by the operating system for longer than its TTL, just before it writes."""

from __future__ import annotations

import signal
import subprocess

import anyio
import pytest

from tests.daemon import opened
from tests.forked import Forked
from tests.waiting import until_stopped


@pytest.mark.parametrize(
    ("how", "answer", "body"), [("unfenced", "done", "unfenced"), ("fenced", "ZC312", "the new holder's")]
)
async def test_a_holder_that_was_paused_past_its_ttl_overwrites_unless_it_is_fenced(
    database_url: str, how: str, answer: str, body: str
) -> None:
    async with opened(database_url) as connection:
        await connection.execute("create table public.work (body text); insert into public.work values ('')")
        agent = await connection.fetchval("select id from coordinator.agent_register('default', 'next')")
        with Forked("tests.faults.lock_pauser", database_url, how, stdout=subprocess.PIPE, text=True) as paused:
            try:
                await until_stopped(paused.pid)
                await connection.execute("update coordinator.locks set expires_at = now(), free_at = now()")
                token = await connection.fetchval(
                    "select fencing_token from coordinator.lock_acquire('default', '{work}', $1)", agent
                )
                async with connection.transaction():
                    await connection.execute("select coordinator.assert_fence('default', 'work', $1)", token)
                    await connection.execute("update public.work set body = $1", "the new holder's")
                paused.send_signal(signal.SIGCONT)
                assert await anyio.to_thread.run_sync(paused.communicate) == (f"{answer}\n", None)
            finally:
                paused.kill()
        assert await connection.fetchval("select body from public.work") == body
