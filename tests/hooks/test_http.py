"""``POST /v1/hooks/<dialect>`` of a daemon or sidecar."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette import requests

from coordinator.api.believed import Believed
from coordinator.api.principal import Principal
from coordinator.hooks.dialects import PAYLOAD_BYTES
from coordinator.hooks.http import _near, _Permitted
from coordinator.model.operation import Operation
from coordinator.operations import agents, files
from tests.daemon import Daemon, opened
from tests.hooks.repositories import git
from tests.http_client import http_client
from tests.sidecar.conftest import sidecar
from tests.waiting import until


def payload(event: str, cwd: Path | str, session: str = "s1", **fields: Any) -> dict[str, Any]:
    return {"session_id": session, "cwd": str(cwd), "hook_event_name": event, **fields}


def edit(cwd: Path | str, name: str, session: str = "s1", event: str = "PreToolUse") -> dict[str, Any]:
    return payload(event, cwd, session, tool_name="Edit", tool_input={"file_path": name})


async def test_hooks_over_http(database_url: str, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    far = "/no/such/directory/on/this/machine"

    async def post(client: httpx.AsyncClient, body: dict[str, Any], **query: str) -> dict[str, Any]:
        answer = await client.post("/v1/hooks/claude-code", json=body, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json().get("hookSpecificOutput", {})

    with Daemon(database_url, constants={"coordinator.api.server.DRAIN_S": 600}) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as client:
            assert await post(client, edit(tmp_path, "a.py")) == {}
            refusal = await post(client, edit(tmp_path, "a.py", "s2"))
            assert "claude-code-s1" in refusal["permissionDecisionReason"]
            assert f"coordinator --url {daemon.url} lock acquire " in refusal["permissionDecisionReason"]
            for decision in ("deny", "none"):
                verdicts = f'coordinator_hook_verdicts_total{{decision="{decision}",tool="claude-code"}}'
                assert await daemon.metric(verdicts) == 1
            large = edit(tmp_path, "large.txt")
            large["tool_input"]["content"] = "x" * (PAYLOAD_BYTES - 1000)
            assert await post(client, large) == {}
            # A shell command needs the lock of its rule until it is done.
            shell = {"tool_name": "Bash", "tool_input": {"command": "git checkout ."}}
            assert await post(client, payload("PreToolUse", tmp_path, **shell)) == {}
            assert (await post(client, payload("PreToolUse", tmp_path, "s2", **shell)))["permissionDecision"] == "deny"
            await post(client, payload("PostToolUse", tmp_path, **shell))
            assert await post(client, payload("PreToolUse", tmp_path, "s2", **shell)) == {}
            # Of files on another machine, what sessions record of them is known.
            read = {"tool_name": "Read", "tool_input": {"file_path": "a.py"}}
            await post(client, payload("PostToolUse", far, "s3", **read))
            assert await post(client, edit(far, "a.py", "s4")) == {}
            await post(client, edit(far, "a.py", "s4", "PostToolUse"))
            await post(client, payload("Stop", far, "s4"))
            assert "was changed" in (await post(client, edit(far, "a.py", "s3")))["permissionDecisionReason"]
            # Reads share a file, and an edit needs it alone.
            for session in ("r1", "r2"):
                assert (
                    await post(
                        client,
                        payload("PreToolUse", tmp_path, session, **read | {"tool_input": {"file_path": "b.py"}}),
                        shared_reads="true",
                    )
                    == {}
                )
            assert (await post(client, edit(tmp_path, "b.py", "r3")))["permissionDecision"] == "deny"

            # A daemon that shuts down lets nobody wait, and says who holds the file.
            waiting = asyncio.create_task(post(client, edit(tmp_path, "b.py", "r3"), wait="10m"))
            await until(lambda: _waits(database_url), "r3 waits")

            for query in ({"wait": "x"}, {"wait": "1h"}, {"hold": "x"}, {"nonsense": "1"}, {"unreachable": "x"}):
                refused = await client.post("/v1/hooks/claude-code", json=edit(tmp_path, "a.py"), params=query)
                assert (refused.status_code, bool(refused.json()["hint"])) == (
                    400,
                    True,
                ) or refused.status_code == 422, refused.text
            for body in (b"", b"{", b"[]", b"[" * 100_000):
                refused = await client.post("/v1/hooks/claude-code", content=body)
                assert 400 <= refused.status_code < 500, refused.text
            assert (await client.post("/v1/hooks/nobody", json={})).status_code == 404
            for cwd in ("x" * 5000, "d/" * 1_000_000, "\0"):
                assert await post(client, payload("Stop", cwd)) == {}
            many = "\n".join(["*** Begin Patch", *(f"*** Add File: {n}" for n in range(2_000)), "*** End Patch"])
            for event, decision in (("PreToolUse", "deny"), ("PostToolUse", None)):
                answer = await post(
                    client, payload(event, tmp_path, "s9", tool_name="apply_patch", tool_input={"input": many})
                )
                assert answer.get("permissionDecision") == decision
            daemon.send(signal.SIGTERM)
            assert '"b.py" is held by agent "claude-code-r' in (await waiting)["permissionDecisionReason"]
            assert await daemon.ended() == 0


async def _waits(database_url: str) -> bool:
    async with opened(database_url) as connection:
        return bool(await connection.fetchval("select count(*) from coordinator.lock_waits"))


async def test_a_sidecar_answers_hooks_on_its_socket_and_its_port(database_url: str, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "begin")
    git(tmp_path, "worktree", "add", "--quiet", "linked")
    path = tmp_path / "s.sock"
    with sidecar(database_url, "--agent", "beside", "--socket", str(path)) as beside:
        await beside.started()
        async with http_client(f"unix://{path}") as local, http_client(beside.url) as near:
            post = "/v1/hooks/claude-code"
            for client, session in ((local, "s1"), (near, "s2")):
                told = (await client.post(post, json=payload("SessionStart", tmp_path, session))).json()
                assert f"claude-code-{session}" in told["hookSpecificOutput"]["additionalContext"]
            (tmp_path / "a.py").write_text("one", "utf-8")
            for event in ("PreToolUse", "PostToolUse"):
                read = payload(event, tmp_path, "s1", tool_name="Read", tool_input={"file_path": "a.py"})
                assert (await local.post(post, json=read)).json() == {}
            assert (await near.post(post, json=edit(tmp_path, "a.py", "s2"))).json() == {}
            refusal = (await local.post(post, json=edit(tmp_path, "a.py"))).text
            assert "claude-code-s2" in refusal
            shared = edit(tmp_path / "linked", "a.py", "s3")
            assert (await near.post(post, json=shared, params={"worktrees": "shared"})).json() != {}
            (tmp_path / "a.py").write_text("two", "utf-8")  # a sidecar reads the files, over both
            waiting = asyncio.create_task(local.post(post, json=edit(tmp_path, "a.py"), params={"wait": "1m"}))
            await near.post(post, json=payload("SessionEnd", tmp_path, "s2"))
            assert "was changed" in (await waiting).text
            other = {"conversation_id": "c", "hook_event_name": "preToolUse", "workspace_roots": [str(tmp_path)]}
            for client in (local, near):
                answer = await client.post("/v1/hooks/cursor", json=other | {"tool_name": "Write", "tool_input": {}})
                assert answer.json()["permission"] == "allow", answer.text
                assert (await client.post(post, content=b"{")).status_code == 422


class Recorder:
    """Records the operations that it is given."""

    def __init__(self) -> None:
        self.functions: list[str] = []

    async def run(self, operation: Operation[Any]) -> Any:
        self.functions.append(operation.function)


LONG = 3600.0


@pytest.mark.parametrize(("before", "made"), [
    ([], True),
    ([agents.Join(project="p", name="s", metadata={"tool": "t"})], False),
    ([files.Edit(project="p", agent="s", paths=["a"], metadata={"tool": "t", "task": "x"})], False),
    ([files.Record(project="p", agent="s", paths=["a"], metadata={"tool": "t"})], False),
    ([files.Leave(project="p", agent="s")], True),  # no heartbeat
    ([agents.Join(project="p", name="s", metadata={"tool": "other"})], True),  # the metadata changes
    ([agents.Join(project="p", name="other", metadata={"tool": "t"})], True),
    ([agents.Join(project="other", name="s", metadata={"tool": "t"})], True),
    ([agents.Join(project="p", name="s", metadata={"tool": "t"}, ttl=timedelta(hours=1))], True),
])  # fmt: skip
async def test_a_call_that_would_only_be_a_heartbeat_is_not_made_just_after_another_heartbeat(
    before: list[Operation[Any]], made: bool
) -> None:
    heartbeat = agents.Join(project="p", name="s", metadata={"tool": "t"})
    recorder = Recorder()
    executor = _Permitted(Principal(), recorder, Believed(LONG))
    for operation in before:
        await executor.run(operation)
    await executor.heartbeat(heartbeat)
    assert recorder.functions[len(before) :] == ["agent_join"] * made


async def test_heartbeats_are_made_again_later_and_always_for_a_short_ttl() -> None:
    for heard, ttl in ((Believed(0.0), timedelta(minutes=10)), (Believed(LONG), timedelta(seconds=59))):
        recorder = Recorder()
        executor = _Permitted(Principal(), recorder, heard)
        for _ in range(3):
            await executor.heartbeat(agents.Join(project="p", name="s", metadata={}, ttl=ttl))
        assert recorder.functions == ["agent_join"] * 3


@pytest.mark.parametrize("policy", ["ask", "deny"])
async def test_an_error_of_the_coordinator_is_answered_by_the_policy(
    database_url: str, tmp_path: Path, policy: str
) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "coordinator.yaml").write_text("shell: 1\n", "utf-8")
    with Daemon(database_url) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as client:
            answer = await client.post(f"/v1/hooks/claude-code?unreachable={policy}", json=edit(tmp_path, "a.py"))
    assert answer.json()["hookSpecificOutput"]["permissionDecision"] == policy


@pytest.mark.parametrize(("client", "header", "near"), [
    (None, None, True),  # a Unix socket
    ("127.0.0.1", None, True),
    ("::1", None, True),
    ("198.51.100.7", None, False),
    ("127.0.0.1", b"x-forwarded-for", False),  # a proxy on this machine
    ("127.0.0.1", b"forwarded", False),
])  # fmt: skip
def test_files_are_read_only_for_callers_that_no_proxy_hides(
    client: str | None, header: bytes | None, near: bool
) -> None:
    headers = [] if header is None else [(header, b"127.0.0.1")]
    scope = {"type": "http", "client": client and (client, 4711), "headers": headers}
    assert _near(requests.Request(scope)) is near  # type: ignore[arg-type] - it has what is asked
