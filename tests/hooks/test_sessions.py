"""Sessions that speak the hook protocol, over HTTP and through processes, edit one repository at the same time.

Each edit is read, wait, write: the content that was read, and a line more. So two writers at a time, or an edit of what somebody else has
changed since, lose a line or meet in ``writing``.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.cli.conftest import Program
from tests.daemon import Daemon
from tests.hooks.repositories import git
from tests.http_client import http_client
from tests.ports import reserve_port

FILES = ("a.py", "b.py", "c.py")
TRIES = 2000  # of one edit: work, not time


class Tree:
    """The repository, what is being written, and what must be in it at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writing: dict[str, str] = {}
        self.wrote: list[tuple[str, str]] = []
        self.refused = 0
        for name in FILES:
            (folder / name).write_text("", "utf-8")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text("utf-8")


class Session:
    """One session of a tool. ``program`` is None for hooks over HTTP."""

    def __init__(self, tree: Tree, name: str, http: httpx.AsyncClient, program: Program | None) -> None:
        self.tree = tree
        self.name = name
        self.http = http
        self.program = program
        self.seen: dict[tuple[str | None, str], str] = {}

    async def hook(self, event: str, subagent: str | None = None, **fields: Any) -> dict[str, Any]:
        payload = {"session_id": self.name, "cwd": str(self.tree.folder), "hook_event_name": event, **fields}
        if subagent is not None:
            payload["agent_id"] = subagent
        if self.program is None:
            answer = await self.http.post("/v1/hooks/claude-code?unreachable=deny", json=payload)
            assert answer.status_code == 200, answer.text
            return answer.json()
        done = await asyncio.to_thread(
            self.program.run,
            "hook",
            "run",
            "--wait",
            "0s",
            "--limit",
            "60s",
            "--unreachable",
            "deny",
            stdin=json.dumps(payload).encode(),
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        return json.loads(done.stdout) if done.stdout else {}

    async def see(self, name: str, subagent: str | None) -> None:
        call: dict[str, Any] = {"tool_name": "Read", "tool_input": {"file_path": str(self.tree.folder / name)}}
        await self.hook("PreToolUse", subagent, **call)
        self.seen[subagent, name] = self.tree.read(name)
        await self.hook("PostToolUse", subagent, **call)

    async def edit(self, line: str, *names: str, subagent: str | None = None) -> None:
        """Add a line to files, in one patch, after as many refusals as it takes."""
        patch = "\n".join(
            ["*** Begin Patch", *(f"*** Update File: {name}\n@@\n+{line}" for name in names), "*** End Patch"]
        )
        call: dict[str, Any] = {"tool_name": "apply_patch", "tool_input": {"input": patch}}
        for _ in range(TRIES):
            for name in names:
                if (subagent, name) not in self.seen:
                    await self.see(name, subagent)
            answer = await self.hook("PreToolUse", subagent, **call)
            specific = answer.get("hookSpecificOutput", {})
            if specific.get("permissionDecision") is None:
                await self.write(line, names, subagent)
                await self.hook("PostToolUse", subagent, **call)
                return
            reason = specific["permissionDecisionReason"]
            assert specific["permissionDecision"] == "deny"
            self.tree.refused += 1
            owner = self.name if subagent is None else f"{self.name}/{subagent}"
            assert f'agent "claude-code-{self.name}"' not in reason, f"{owner} is refused by its own lease: {reason}"
            if "was changed" in reason:
                for name in names:
                    self.seen.pop((subagent, name), None)
            else:
                await self.hook("Stop" if subagent is None else "SubagentStop", subagent)
                await asyncio.sleep(0.01)
        raise AssertionError(f"{self.name} never got {names}")

    async def write(self, line: str, names: tuple[str, ...], subagent: str | None) -> None:
        for name in names:
            assert name not in self.tree.writing, f"{self.name} and {self.tree.writing[name]} write {name} at a time"
            self.tree.writing[name] = self.name
        await asyncio.sleep(0)
        for name in names:
            content = f"{self.seen[subagent, name]}{line}\n"  # of the buffer, however old it is
            (self.tree.folder / name).write_text(content, "utf-8")
            self.seen[subagent, name] = content
            self.tree.wrote.append((name, line))
            await asyncio.sleep(0)
        for name in names:
            del self.tree.writing[name]

    async def work(self, edits: int, rng: random.Random) -> None:
        await self.hook("SessionStart", source="startup")
        for number in range(edits):
            names = rng.sample(FILES, rng.choice([1, 1, 2, 3]))  # in any order
            subagent = rng.choice([None, None, "x", "y"])
            await self.edit(f"{self.name}-{number}", *names, subagent=subagent)
            if subagent is not None:
                await self.hook("SubagentStop", subagent)
            if rng.random() < 0.7:
                await self.hook("Stop")
            if rng.random() < 0.2:
                await self.hook("Stop")  # of a turn without edits
            if rng.random() < 0.2:
                await self.hook("SessionStart", source="resume")
        await self.hook("SessionEnd", reason="exit")


class Patient(Session):
    """Makes a call again that a daemon did not answer."""

    async def hook(self, event: str, subagent: str | None = None, **fields: Any) -> dict[str, Any]:
        while True:
            with suppress(httpx.TransportError):
                answer = await super().hook(event, subagent, **fields)
                if (
                    "held by" in json.dumps(answer)
                    or "was changed" in json.dumps(answer)
                    or not answer.get("hookSpecificOutput")
                ):
                    return answer
            await asyncio.sleep(0.05)


async def check(tree: Tree, database_url: str) -> None:
    """Every line is in its file once, and nobody holds or waits for anything."""
    for name in FILES:
        assert sorted(tree.read(name).splitlines()) == sorted(line for file, line in tree.wrote if file == name)
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetch("select resource, agent_name from coordinator.locks") == []
        assert await connection.fetchval("select count(*) from coordinator.lock_waits") == 0
        assert await connection.fetchval("select count(*) from coordinator.agents") == 0
    finally:
        await connection.close()


@pytest.fixture
def program(tmp_path: Path, database_url: str) -> Program:
    git(tmp_path, "init", "--quiet")
    return Program(tmp_path, {"COORDINATOR_DATABASE_URL": database_url})


@pytest.fixture
async def http(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    with Daemon(database_url) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as client:
            yield client


async def test_sessions_lose_no_update_and_never_write_a_file_at_the_same_time(
    program: Program, http: httpx.AsyncClient, database_url: str, seed: int
) -> None:
    tree = Tree(program.folder)
    rng = random.Random(seed)
    sessions = [Session(tree, f"s{number}", http, None) for number in range(4)]
    await asyncio.gather(*(session.work(4, random.Random(rng.random())) for session in sessions))
    assert len(tree.wrote) >= 16
    await check(tree, database_url)


async def test_sessions_through_processes_lose_no_update_either(
    program: Program, http: httpx.AsyncClient, database_url: str, seed: int
) -> None:
    tree = Tree(program.folder)
    through_process = Session(tree, "p", http, program)
    over_http = Session(tree, "h", http, None)
    await asyncio.gather(through_process.work(1, random.Random(seed)), over_http.work(3, random.Random(seed + 1)))
    await check(tree, database_url)


async def test_a_session_that_was_killed_continues_with_its_leases_and_what_it_saw(
    program: Program, http: httpx.AsyncClient, database_url: str
) -> None:
    """Every call is a process of its own: what a session knows is in the database."""
    tree = Tree(program.folder)
    first, second = Session(tree, "s1", http, program), Session(tree, "s2", http, None)
    await first.edit("one", "a.py")
    call: dict[str, Any] = {"tool_name": "Edit", "tool_input": {"file_path": "a.py"}}
    refusal = await second.hook("PreToolUse", **call)
    assert "claude-code-s1" in json.dumps(refusal)
    resumed = Session(tree, "s1", http, None)
    await resumed.hook("SessionStart", source="resume")
    assert await resumed.hook("PreToolUse", **call) == {}
    await resumed.hook("SessionEnd")
    await second.edit("two", "a.py")
    assert tree.read("a.py") == "one\ntwo\n"
    await second.hook("SessionEnd")
    await check(tree, database_url)


@pytest.mark.long
async def test_eight_sessions_edit_for_long_while_daemons_are_killed(
    program: Program, database_url: str, seed: int
) -> None:
    tree = Tree(program.folder)
    rng = random.Random(seed)
    port = reserve_port()
    ended = asyncio.Event()

    async def daemons() -> None:
        while not ended.is_set():
            with Daemon(database_url, port=port) as daemon:
                await daemon.ready()
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), 10)
                daemon.process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM]))
                await asyncio.to_thread(daemon.process.wait, 60)

    async with http_client(f"http://127.0.0.1:{port}") as client:
        running = asyncio.create_task(daemons())
        sessions = [Patient(tree, f"s{number}", client, program if number < 2 else None) for number in range(8)]
        try:
            await asyncio.gather(*(session.work(25, random.Random(rng.random())) for session in sessions))
        finally:
            ended.set()
            await running
    assert tree.refused > 0
    await check(tree, database_url)
