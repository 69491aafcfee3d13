"""The handler as a process: a payload of Claude Code in, its answer out."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cli.conftest import Program
from tests.hooks.repositories import git
from tests.waiting import until

PATIENT = ("--limit", "60s", "--wait", "0s")  # a busy machine may be slow


@pytest.fixture
def program(tmp_path: Path, database_url: str) -> Program:
    git(tmp_path, "init", "--quiet")
    return Program(tmp_path, {"COORDINATOR_DATABASE_URL": database_url, "COORDINATOR_PROJECT": "shop"})


@pytest.fixture
def lone(tmp_path: Path) -> Program:
    return Program(tmp_path, {})


def payload(event: str, folder: Path, session: str = "s1", **fields: Any) -> bytes:
    return json.dumps(
        {"session_id": session, "transcript_path": "/t", "cwd": str(folder), "hook_event_name": event, **fields}
    ).encode()


def call(program: Program, event: str, session: str = "s1", *options: str, **fields: Any) -> dict[str, Any]:
    """Run the handler, which must succeed, and return what it prints."""
    done = program.run("hook", "run", *PATIENT, *options, stdin=payload(event, program.folder, session, **fields))
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout) if done.stdout else {}


def edit(program: Program, name: str, session: str = "s1", *options: str) -> dict[str, Any]:
    tool_input = {"file_path": str(program.folder / name), "old_string": "a", "new_string": "b"}
    answer = call(program, "PreToolUse", session, *options, tool_name="Edit", tool_input=tool_input)
    return answer.get("hookSpecificOutput", {})


def test_an_edit_is_leased_and_denied_to_another_session_until_the_turn_ends(program: Program) -> None:
    call(program, "UserPromptSubmit", prompt="Fix the login\nand `rm -rf /`")
    assert edit(program, "a.py") == {}
    refusal = edit(program, "a.py", "s2")
    assert refusal["permissionDecision"] == "deny"
    reason = refusal["permissionDecisionReason"]
    assert '"a.py" is held by agent "claude-code-s1"' in reason
    assert "\"Fix the login and 'rm -rf /'\"" in reason
    assert "--agent claude-code-s2 --owner s2" in reason
    assert edit(program, "a.py") == {}
    call(program, "Stop")
    assert edit(program, "a.py", "s2") == {}


def test_the_command_that_a_refusal_names_waits_for_the_file(program: Program) -> None:
    edit(program, "a.py")
    reason = edit(program, "a.py", "s2")["permissionDecisionReason"]
    command = reason.partition("Or wait: coordinator ")[2].partition(" Or ask")[0].split()
    call(program, "Stop")
    program.json(*command)
    assert edit(program, "a.py")["permissionDecision"] == "deny"
    assert edit(program, "a.py", "s2") == {}
    call(program, "Stop", "s2")
    assert edit(program, "a.py") == {}


def test_an_edit_of_what_somebody_else_has_changed_is_denied_until_it_is_read_again(program: Program) -> None:
    path = program.folder / "a.py"
    path.write_text("one", "utf-8")
    read = {"tool_name": "Read", "tool_input": {"file_path": str(path)}}
    for event in ("PreToolUse", "PostToolUse"):
        call(program, event, "s2", **read)
    edit(program, "a.py")
    path.write_text("two", "utf-8")
    call(program, "PostToolUse", tool_name="Edit", tool_input={"file_path": str(path)})
    call(program, "SessionEnd")
    reason = edit(program, "a.py", "s2")["permissionDecisionReason"]
    assert '"a.py" was changed by "claude-code-s1/s1" at ' in reason
    assert "Read what has changed again" in reason
    for event in ("PreToolUse", "PostToolUse"):
        call(program, event, "s2", **read)
    assert edit(program, "a.py", "s2") == {}


def test_a_session_is_told_who_is_at_work_and_then_what_is_new(program: Program) -> None:
    def told(event: str, session: str, **fields: Any) -> str:
        return call(program, event, session, **fields).get("hookSpecificOutput", {}).get("additionalContext", "")

    told("UserPromptSubmit", "s1", prompt="Fix the login")
    edit(program, "a.py")
    greeting = told("SessionStart", "s2", source="startup")
    assert "Fix the login" in greeting
    assert "a.py" in greeting
    assert told("UserPromptSubmit", "s2", prompt="Go on") == ""
    program.json("directive", "send", "Add tests first.", "--to-agent", "claude-code-s2")
    assert "Add tests first." in told("UserPromptSubmit", "s2", prompt="Go on")
    assert told("UserPromptSubmit", "s2", prompt="Go on") == ""


@pytest.mark.parametrize("name", ["a\nb.py", "../outside.py", "a\0b", "x/../y.py"])
def test_strange_paths_are_answered(program: Program, name: str) -> None:
    done = program.run(
        "hook",
        "run",
        *PATIENT,
        stdin=payload("PreToolUse", program.folder, tool_name="Write", tool_input={"file_path": name, "content": "x"}),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"session_id": "s', b"\xff\xfe", b"[" * 100_000, b"x" * (9 << 20)]
)
@pytest.mark.parametrize(("policy", "code"), [("ask", 1), ("deny", 2)])
def test_what_is_no_payload_is_refused_in_one_line(lone: Program, body: bytes, policy: str, code: int) -> None:
    done = lone.run("hook", "run", "--unreachable", policy, stdin=body)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("policy", "decision"), [("ask", "ask"), ("deny", "deny"), ("allow", None)])
def test_the_policy_answers_where_nobody_else_does(lone: Program, policy: str, decision: str | None) -> None:
    git(lone.folder, "init", "--quiet")
    lone.constants = {"coordinator.cli.hook_run.STDIN_S": 3600}  # only the limit of the call is left to end it
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        edit = payload("PreToolUse", lone.folder, tool_name="Edit", tool_input={"file_path": "a.py"})
        done = lone.run("hook", "run", "--url", url, "--unreachable", policy, stdin=edit)
        stop = lone.run("hook", "run", "--url", url, stdin=payload("Stop", lone.folder))
    assert (done.returncode, done.stderr, "Traceback" in done.stdout) == (0, "", False)
    answer = json.loads(done.stdout)
    assert answer.get("hookSpecificOutput", {}).get("permissionDecision") == decision
    assert "does not answer" in json.dumps(answer)
    assert (stop.returncode, stop.stdout) == (0, "")


def test_a_configuration_that_cannot_be_read_is_answered_by_the_policy(lone: Program) -> None:
    git(lone.folder, "init", "--quiet")
    (lone.folder / "coordinator.yaml").write_text("shell: 1\n", "utf-8")
    edit = payload("PreToolUse", lone.folder, tool_name="Edit", tool_input={"file_path": "a.py"})
    answer = json.loads(lone.run("hook", "run", stdin=edit).stdout)["hookSpecificOutput"]
    assert answer["permissionDecision"] == "ask"
    assert "is not a list" in answer["permissionDecisionReason"]


async def test_a_signal_ends_a_wait_and_its_ticket(program: Program, database_url: str) -> None:
    edit(program, "a.py")
    body = payload(
        "PreToolUse", program.folder, "s2", tool_name="Edit", tool_input={"file_path": str(program.folder / "a.py")}
    )
    (program.folder / "payload").write_bytes(body)
    with (program.folder / "payload").open("rb") as given:
        waiting = program.start("hook", "run", "--limit", "60s", "--wait", "1h", stdin=given)
    connection = await asyncpg.connect(database_url)
    try:

        async def tickets() -> int:
            return await connection.fetchval("select count(*) from coordinator.lock_waits")

        await until(lambda: _is(tickets, 1))
        waiting.send_signal(signal.SIGTERM)
        await until(lambda: _is(tickets, 0))
    finally:
        await connection.close()
        waiting.wait(60)
        waiting.communicate()


async def _is(read: Any, wanted: int) -> bool:
    return await read() == wanted


def test_a_session_is_told_who_edits_the_same_file_in_another_work_tree(program: Program) -> None:
    git(program.folder, "commit", "--quiet", "--allow-empty", "-m", "begin")
    git(program.folder, "worktree", "add", "--quiet", "beside")
    assert edit(program, "a.py") == {}
    tool_input = {"file_path": str(program.folder / "beside" / "a.py"), "old_string": "a", "new_string": "b"}
    answer = call(program, "PreToolUse", "s2", tool_name="Edit", tool_input=tool_input)
    assert 'is also held by "claude-code-s1 in the main work tree"' in json.dumps(answer, ensure_ascii=False).replace(
        '\\"', '"'
    )
    assert "deny" not in json.dumps(answer)
    assert call(program, "PreToolUse", "s2", tool_name="Edit", tool_input=tool_input) == {}
