"""``coordinator mcp``: a process that serves the protocol on its standard input and output, as an agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.errors import ConfigurationError
from coordinator.model.token import Role
from coordinator.operations import agents, locks, signals
from coordinator.relay import Relay
from coordinator.sidecar.main import serve_mcp
from tests.forked import forking
from tests.sidecar.conftest import sidecar
from tests.waiting import DEADLINE_S, LASTING_S, OFTEN, until

ARGUMENTS = ["mcp", "--agent", "coder-1", "--log-format", "json"]
PROMPT = {"coordinator.client.lease.RENEWALS_PER_TTL": OFTEN}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a session begin in the newest version and end in order, however slow the machine is."""
    monkeypatch.setattr("mcp.client.session.DISCOVER_TIMEOUT_SECONDS", DEADLINE_S)
    monkeypatch.setattr("mcp.client.stdio.PROCESS_TERMINATION_TIMEOUT", DEADLINE_S)


@asynccontextmanager
async def session(
    url: str, *arguments: str, heard: list[Any] | None = None, mode: str = "auto"
) -> AsyncIterator[Client]:
    async def hear(message: Any) -> None:
        if heard is not None:
            heard.append(message)

    command, *before = forking("coordinator", PROMPT)
    server = StdioServerParameters(
        command=command,
        args=[*before, *ARGUMENTS, *arguments],
        env={"COORDINATOR_DATABASE_URL": url, "PATH": os.environ["PATH"]},
    )
    async with Client(server, mode=mode, message_handler=hear) as client:
        yield client


async def held(db: Database) -> list[str]:
    return [lock.resource for lock in await db.run(locks.List(project="default"))]


async def test_a_session_is_an_agent_whose_locks_are_renewed_and_end_with_it(db: Database, database_url: str) -> None:
    async with session(database_url) as client:
        (agent,) = await db.run(agents.List(project="default"))
        assert agent.name == "coder-1"
        granted = await client.call_tool("lock_acquire", {"resources": ["src/app.py"], "ttl": f"{LASTING_S:g}s"})
        first = granted.structured_content["items"][0]

        async def renewed() -> bool:
            (lock,) = await db.run(locks.List(project="default"))
            assert lock.fencing_token == first["fencing_token"]
            return lock.expires_at is not None and lock.expires_at.isoformat() > first["expires_at"]

        await until(renewed, "the lock is renewed")
        await client.call_tool("lock_acquire", {"resources": ["name:deploy"]})
        token = [lock.fencing_token for lock in await db.run(locks.List(project="default"))][-1]
        released = await client.call_tool(
            "lock_release", {"resources": ["src/app.py"], "tokens": [first["fencing_token"]]}
        )
        assert not released.is_error, (released.content, token)
        assert await held(db) == ["name:deploy"]
    assert await held(db) == []
    assert await db.run(agents.List(project="default")) == []


async def test_a_lock_is_waited_for_and_a_cancelled_call_leaves_the_queue(db: Database, database_url: str) -> None:
    other = await db.run(agents.Register(project="default", name="other", ttl=timedelta(hours=1)))
    (grant,) = await db.run(locks.Acquire(project="default", resources=["a"], agent=other.id, ttl=timedelta(hours=1)))
    async with anyio.create_task_group() as relaying, session(database_url) as client:
        relaying.start_soon(Relay(db).run_forever)
        refused = await client.call_tool("lock_acquire", {"resources": ["a"]})
        assert refused.is_error
        assert "other" in refused.content[0].text

        async def waiting() -> int:
            return len(await db.run(locks.ListWaiting(project="default", resource="a")))

        async def nobody() -> bool:
            return await waiting() == 0

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "lock_acquire", {"resources": ["a"], "wait": "1h"})
            await until(waiting, "the call waits")
            tasks.cancel_scope.cancel()
        await until(nobody, "the cancelled call has left the queue")
        answers: list[Any] = []

        async def acquire() -> None:
            answers.append(await client.call_tool("lock_acquire", {"resources": ["a"], "wait": "1h"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(acquire)
            await until(waiting, "the call waits")
            await db.run(
                locks.Release(project="default", resources=["a"], agent=other.id, tokens=[grant.fencing_token or 0])
            )
        assert not answers[0].is_error, answers[0].content
        assert answers[0].structured_content["items"][0]["granted"]
        relaying.cancel_scope.cancel()


async def test_what_is_changed_in_sql_is_pushed_to_a_session(db: Database, database_url: str) -> None:
    heard: list[Any] = []
    async with anyio.create_task_group() as tasks, session(database_url, heard=heard, mode="legacy") as client:
        with pytest.warns(Warning, match="removed"):
            await client.subscribe_resource("coordinator://default/signals/build/42")
        for key in ("other", "build/42"):
            await db.run(signals.Set(project="default", key=key, value=1))
        tasks.start_soon(Relay(db).run_forever)
        assert await until(
            lambda: [message.params.uri for message in heard if hasattr(message.params, "uri")], "the session is told"
        ) == ["coordinator://default/signals/build/42"]
        tasks.cancel_scope.cancel()


async def test_a_sidecar_bounds_those_that_listen(database_url: str) -> None:
    with sidecar(database_url, "--agent", "coder-1", COORDINATOR_MCP_LISTENERS="1") as beside:
        await beside.started()
        async with (
            httpx2.AsyncClient(timeout=DEADLINE_S) as http,
            Client(streamable_http_client(f"{beside.url}/mcp", http_client=http), mode="2026-07-28") as client,
            client.listen(resource_subscriptions=["coordinator://default/locks"]),
        ):
            with pytest.raises(MCPError, match="ZH503"):
                async with client.listen(resource_subscriptions=["coordinator://default/agents"]):
                    pass
            assert not (await client.call_tool("lock_list", {})).is_error


async def test_a_signal_ends_it_in_order_while_nothing_arrives(db: Database, database_url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "coordinator", *ARGUMENTS, "--tools", "reader"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"COORDINATOR_DATABASE_URL": database_url, "PATH": os.environ["PATH"]},
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    try:
        process.stdin.write(
            json.dumps(
                {
                    "jsonrpc": "2.0",
                    "id": 1,
                    "method": "initialize",
                    "params": {
                        "protocolVersion": "2025-06-18",
                        "capabilities": {},
                        "clientInfo": {"name": "test", "version": "1"},
                    },
                }
            ).encode()
            + b"\nno JSON\n"
        )
        process.stdin.flush()
        answer = json.loads(await anyio.to_thread.run_sync(process.stdout.readline))
        assert answer["result"]["serverInfo"]["name"] == "coordinator"
        assert [agent.name for agent in await db.run(agents.List(project="default"))] == ["coder-1"]
        process.send_signal(signal.SIGTERM)
        assert await anyio.to_thread.run_sync(process.wait, DEADLINE_S) == 0
        assert await db.run(agents.List(project="default")) == []
        said = [json.loads(line)["event"] for line in process.stderr.read().splitlines()]
        assert said[-1] == "mcp.stopped"
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()


async def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.sidecar.main.find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError) as refusal:
        await serve_mcp(Config(), timedelta(seconds=30), Role.agent)
    assert "coordinatord[mcp]" in (refusal.value.hint or "")
