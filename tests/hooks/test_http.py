"""``POST /v1/hooks/<dialect>`` of a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.daemon import Daemon
from tests.hooks.repositories import git
from tests.http_client import http_client


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

    with Daemon(database_url) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as client:
            assert await post(client, edit(tmp_path, "a.py")) == {}
            refusal = await post(client, edit(tmp_path, "a.py", "s2"))
            assert "claude-code-s1" in refusal["permissionDecisionReason"]
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
