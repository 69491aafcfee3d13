"""Sessions that speak the hook protocol, over HTTP and through processes, edit one repository at the same time.

Each edit is read, wait, write: the content that was read, and a line more. So two writers at a time, or an edit of what somebody else has
changed since, lose a line or meet in ``writing``. Daemons and hooks are killed meanwhile, and whoever got no answer asks again.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from tests.waiting import DEADLINE_S

FILES = ("a.py", "b.py", "c.py")
TRIES = 2000  # of one edit: work, not time
WAIT = "30s"
UNANSWERED = "cannot be leased. Try again later"  # the policy


class Server:
    """A daemon at one address, which is killed and started again after every few edits, while some are left."""

    def __init__(self, database_url: str, rng: random.Random, *, every: int, of: int) -> None:
        self.port = reserve_port()
        self.restarts = 0
        self._database_url = database_url
        self._rng = rng
        self._every = every
        self._of = of
        self._busy = asyncio.Lock()
        self._daemon: Daemon | None = None

    async def start(self) -> None:
        self._daemon = Daemon(self._database_url, port=self.port)
        await self._daemon.ready()

    async def stop(self, number: signal.Signals) -> None:
        assert self._daemon is not None
        with self._daemon as daemon:
            daemon.send(number)
            await asyncio.to_thread(daemon.process.wait, DEADLINE_S)

    async def wrote(self, edits: int) -> None:
        """Restart the daemon if it is time; calls of other sessions are under way."""
        async with self._busy:
            if self._every * (self.restarts + 1) <= edits < self._of * 3 / 4:
                self.restarts += 1
                await self.stop(self._rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                await self.start()


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    await server.start()
    try:
        async with http_client(f"http://127.0.0.1:{server.port}") as client:
            yield client
    finally:
        await server.stop(signal.SIGKILL)


class Tree:
    """The repository, what is being written, and what must be in it at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writing: dict[str, str] = {}
        self.wrote: list[tuple[str, str]] = []
        for name in FILES:
            (folder / name).write_text("", "utf-8")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text("utf-8")


class Session:
    """One session of a tool. ``program`` is None for hooks over HTTP; else each call is a process, and some are killed and made again."""

    def __init__(self, tree: Tree, name: str, http: httpx.AsyncClient, program: Program | None = None) -> None:
        self.tree = tree
        self.name = name
        self.http = http
        self.program = program
        self.kills: random.Random | None = None
        self.seen: dict[tuple[str | None, str], str] = {}

    async def hook(self, event: str, subagent: str | None = None, **fields: Any) -> dict[str, Any]:
        """Make a call until it is answered, and not by the policy."""
        payload = {"session_id": self.name, "cwd": str(self.tree.folder), "hook_event_name": event, **fields}
        if subagent is not None:
            payload["agent_id"] = subagent
        call = self.over_http if self.program is None else self.through_a_process
        for _ in range(TRIES):
            answer = await call(payload)
            if answer is not None and UNANSWERED not in json.dumps(answer):
                return answer
            await asyncio.sleep(0.05)
        raise AssertionError(f"{event} of {self.name} was never answered")

    async def over_http(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        try:
            answer = await self.http.post(f"/v1/hooks/claude-code?unreachable=deny&wait={WAIT}", json=payload)
        except httpx.TransportError:
            return None
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def through_a_process(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        assert self.program is not None
        options = ("--wait", WAIT, "--limit", "60s", "--unreachable", "deny")
        body = self.tree.folder / f"{self.name}.payload"
        body.write_text(json.dumps(payload), "utf-8")
        with body.open("rb") as given:
            process = self.program.start("hook", "run", *options, stdin=given)
        if self.kills is not None and self.kills.random() < 0.3:
            await asyncio.sleep(self.kills.random() * 0.1)
            process.kill()
        out, error = await asyncio.to_thread(process.communicate)
        if process.returncode == -signal.SIGKILL:
            return None
        assert (process.returncode, error) == (0, ""), (process.returncode, error)
        return json.loads(out) if out else {}

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
            owner = self.name if subagent is None else f"{self.name}/{subagent}"
            assert f'agent "claude-code-{self.name}"' not in reason, f"{owner} is refused by its own lease: {reason}"
            if "was changed" in reason:
                for name in names:
                    self.seen.pop((subagent, name), None)
            else:
                await self.hook("Stop" if subagent is None else "SubagentStop", subagent)
                await self.hook("Stop")  # it would be a deadlock: others wait for what this session holds
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

    async def work(self, edits: int, rng: random.Random, server: Server) -> None:
        """Edit files. Calls are killed only while much is left to do: the database ends what they began before the session ends."""
        await self.hook("SessionStart", source="startup")
        for number in range(edits):
            self.kills = rng if number < edits // 2 else None
            names = rng.sample(FILES, rng.choice([1, 1, 2, 3]))  # in any order
            subagent = rng.choice([None, None, "x", "y"])
            await self.edit(f"{self.name}-{number}", *names, subagent=subagent)
            await server.wrote(len(self.tree.wrote))
            if subagent is not None:
                await self.hook("SubagentStop", subagent)
            if rng.random() < 0.7:
                await self.hook("Stop")
            if rng.random() < 0.2:
                await self.hook("Stop")  # of a turn without edits
            if rng.random() < 0.2:
                await self.hook("SessionStart", source="resume")
        await self.hook("SessionEnd", reason="exit")


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


async def edited_at_once(
    program: Program, database_url: str, seed: int, *, sessions: int, processes: int, edits: int, restarts: int
) -> None:
    """Let sessions edit at the same time; the first ``processes`` of them call processes."""
    tree = Tree(program.folder)
    rng = random.Random(seed)
    count = sessions * edits
    server = Server(database_url, rng, every=count // (restarts + 1), of=count)
    async with serving(server) as client:
        found = [
            Session(tree, f"s{number}", client, program if number < processes else None) for number in range(sessions)
        ]
        await asyncio.gather(*(session.work(edits, random.Random(rng.random()), server) for session in found))
        assert len(tree.wrote) >= count
        assert server.restarts
        await check(tree, database_url)


async def test_sessions_lose_no_update_and_never_write_a_file_at_the_same_time(
    program: Program, database_url: str, seed: int
) -> None:
    await edited_at_once(program, database_url, seed, sessions=5, processes=1, edits=3, restarts=1)


@pytest.mark.long
async def test_eight_sessions_edit_for_long_while_daemons_and_hooks_are_killed(
    program: Program, database_url: str, seed: int
) -> None:
    await edited_at_once(program, database_url, seed, sessions=8, processes=2, edits=25, restarts=10)


async def test_a_session_that_was_killed_continues_with_its_leases_and_what_it_saw(
    program: Program, database_url: str, seed: int
) -> None:
    """Every call is a process of its own: what a session knows is in the database."""
    tree = Tree(program.folder)
    async with serving(Server(database_url, random.Random(seed), every=1, of=0)) as http:
        first, second = Session(tree, "s1", http, program), Session(tree, "s2", http)
        await first.edit("one", "a.py")
        call: dict[str, Any] = {"tool_name": "Edit", "tool_input": {"file_path": "a.py"}}
        waiting = asyncio.create_task(second.hook("PreToolUse", **call))
        resumed = Session(tree, "s1", http)
        await resumed.hook("SessionStart", source="resume")
        assert await resumed.hook("PreToolUse", **call) == {}
        await resumed.hook("SessionEnd")
        assert await waiting == {}
        await second.edit("two", "a.py")
        assert tree.read("a.py") == "one\ntwo\n"
        await second.hook("SessionEnd")
        await check(tree, database_url)
