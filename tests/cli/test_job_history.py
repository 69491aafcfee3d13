from __future__ import annotations

import json

import asyncpg
import pytest

from coordinator.db.connection import connect
from tests.cli.conftest import Program
from tests.cli.test_output import on_terminal
from tests.daemon import Daemon


async def made(url: str) -> tuple[str, str]:
    """Make a job that failed and one that completed."""
    connection = await connect(url)
    try:
        agent = await connection.fetchval(
            "select id from coordinator.agent_register('default', 'w1', p_job_types => '{t}')"
        )
        return await ended(connection, agent, "fail", "'boom', true"), await ended(
            connection, agent, "complete", "'[7]'"
        )
    finally:
        await connection.close()


async def ended(connection: asyncpg.Connection, agent: object, verb: str, arguments: str) -> str:
    await connection.execute("""select coordinator.job_enqueue('default', 't', '{"user": 7}')""")
    grant = await connection.fetchrow("select * from coordinator.job_claim('default', $1)", agent)
    assert grant is not None
    await connection.execute(
        f"select coordinator.job_{verb}('default', $1, $2, $3, {arguments})", grant["id"], agent, grant["fence"]
    )
    return str(grant["id"])


async def test_jobs_and_workers_on_the_command_line(program: Program, database_url: str) -> None:
    failed, completed = await made(database_url)
    assert [job["id"] for job in program.json("job", "list")] == [completed, failed]
    assert [job["id"] for job in program.json("job", "list", "--status", "failed", "--payload", '{"user": 7}')] == [
        failed
    ]
    assert program.json("job", "list", "--words", "boom", "--type", "t", "--queue", "default")[0]["id"] == failed
    assert program.json("job", "list", "--worker", "w1", "--label", "x") == []
    assert program.json("job", "show", completed)["result"] == [7]
    assert [one["outcome"] for one in program.json("job", "attempts", failed)] == ["failed"]
    assert program.text("job", "why", failed).endswith('attempt 1 of 3 by "w1" failed: boom; the error was final.\n')
    followed = program.run("job", "output", failed, "--follow", "-o", "text")
    assert (followed.returncode, followed.stderr) == (4, program.text("job", "why", failed))
    (stats,) = program.json("job", "stats", "--period", "1h")
    assert (stats["completed"], stats["failed"]) == (1, 1)
    assert program.json("job", "stats", "--hourly")[0]["hour"].endswith("Z")
    assert [worker["name"] for worker in program.json("worker", "list", "--type", "t")] == ["w1"]
    (again,) = program.json("job", "retry", failed)
    assert again["retry_of"] == failed
    assert program.run("job", "retry", failed, "-o", "text").stderr.startswith("It was retried before, as this job")
    assert program.json("job", "retry", "--status", "failed") == []
    program.fails(5, "job", "retry")
    program.fails(5, "job", "list", "--payload", "{")
    program.fails(3, "job", "show", "00000000-0000-0000-0000-000000000000")
    waited = program.run("job", "wait", completed, "-o", "json")
    assert (waited.returncode, json.loads(waited.stdout)["result"]) == (0, [7])
    assert program.run("job", "wait", failed).returncode == 4
    assert program.run("job", "wait", again["id"], "--timeout", "0.05s").returncode == 8


@pytest.mark.parametrize("over_http", [False, True])
async def test_a_wait_ends_with_the_job(program: Program, database_url: str, *, over_http: bool) -> None:
    connection = await connect(database_url)
    try:
        agent = await connection.fetchval(
            "select id from coordinator.agent_register('default', 'w1', p_job_types => '{t}')"
        )
        job = str(await connection.fetchval("select id from coordinator.job_enqueue('default', 't')"))
        grant = await connection.fetchrow("select * from coordinator.job_claim('default', $1)", agent)
        assert grant is not None
        with Daemon(database_url) as daemon:
            await daemon.ready()
            url = daemon.url if over_http else database_url
            process = program.start("--url", url, "job", "wait", job, "-o", "json")
            await connection.execute(
                "select coordinator.job_complete('default', $1, $2, $3, '[7]')", grant["id"], agent, grant["fence"]
            )
            output, _ = process.communicate()
        assert json.loads(output)["result"] == [7]
    finally:
        await connection.close()


def test_a_terminal_shows_no_result_of_a_job_that_has_none(program: Program) -> None:
    job = program.text("job", "enqueue", "x").strip()
    assert "RESULT" not in on_terminal(program, "job", "list")
    seen = on_terminal(program, "job", "show", job)
    assert "payload" in seen
    assert "result" not in seen
    assert "checkpoint" not in seen
