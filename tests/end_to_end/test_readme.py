"""The README's blocks run as they stand, against a real daemon: at the speed of a reader, and twice in a row."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import anyio
import asyncpg

from coordinator.operations import agents, directives, jobs, locks, signals
from tests.conftest import Transaction
from tests.daemon import Daemon
from tests.end_to_end.test_pages import program
from tests.waiting import DEADLINE_S, until

ROOT = Path(__file__).parents[2]
READING_S = 40
CLOCK = """
create table public.clock as select interval '0' as ahead;
create or replace function coordinator.now_utc() returns timestamptz language sql volatile parallel safe
set search_path = pg_catalog, pg_temp
as $$ select clock_timestamp() + (select ahead from public.clock) $$
"""


def blocks() -> list[str]:
    found = re.findall(r"<!-- executed by .*? -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(found) == 3
    return found


class Reader:
    """Runs a script in bash, and moves the database's clock before each of its commands, which each have a deadline."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.commands = 0

    async def run(self, script: str, environment: dict[str, str]) -> str:
        """Return what the script printed. It must succeed."""
        (asked, ask), (answer, answered) = os.pipe(), os.pipe()
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", f"trap 'echo >&{ask}; read -r _ <&{answer}' DEBUG\n{script}"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(ask, answer),
        )
        os.close(ask)
        os.close(answer)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, asked, answered)
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def _read(self, asked: int, answered: int) -> None:
        while True:
            with anyio.fail_after(DEADLINE_S):
                await anyio.wait_readable(asked)
            if not os.read(asked, 1):
                break
            self.commands += 1
            await self._pass_time()
            os.write(answered, b"\n")
        os.close(asked)
        os.close(answered)

    async def _pass_time(self) -> None:
        """Move the clock, and do what the loops would have done meanwhile."""
        await self._connection.execute("update public.clock set ahead = ahead + make_interval(secs => $1)", READING_S)
        tx = Transaction(self._connection)
        for loop in (
            signals.Expire(),
            directives.Expire(),
            locks.Expire(),
            agents.Reap(),
            jobs.Promote(),
            jobs.Rescue(),
        ):
            await tx.run(loop)  # type: ignore[arg-type]


async def test_the_readme_blocks_run_at_reading_speed_and_twice_in_a_row(database_url: str, tmp_path: Path) -> None:
    program(tmp_path)
    environment = {
        **os.environ,
        "COORDINATOR_DATABASE_URL": database_url,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(CLOCK)
        await until(lambda: connection.fetchval("select coordinator.server_settled()"), "the server reaps agents")
        with Daemon(database_url) as daemon:
            await daemon.ready()
            for _ in range(2):
                reader = Reader(connection)
                shown = await reader.run("".join(blocks()), environment)
                assert reader.commands > 15
                assert '"key":"task/7/REJECTED"' in shown
                assert '"type":"signal.cleared"' in shown
                assert '"body":"write tests first"' in shown
                assert "my turn" in shown
    finally:
        await connection.close()
