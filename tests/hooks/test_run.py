"""The handler as a process: a payload of Claude Code in, its answer out."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from coordinator.cli import hook_run
from coordinator.hooks.decide import PLACE_S
from tests.cli.conftest import Program
from tests.daemon import Daemon
from tests.hooks.repositories import git
from tests.http_client import http_client
from tests.sidecar.conftest import sidecar
from tests.waiting import until, until_true

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


def commands(reason: str) -> list[list[str]]:
    """Return the arguments of the commands that a refusal offers, each on a line of its own."""
    found = [shlex.split(line.partition(": ")[2]) for line in reason.split("\n")[1:]]
    return [words[1:] for words in found]


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
    command = commands(reason)[0]
    call(program, "Stop")
    program.json(*command)
    assert edit(program, "a.py")["permissionDecision"] == "deny"
    assert edit(program, "a.py", "s2") == {}
    call(program, "Stop", "s2")
    assert edit(program, "a.py") == {}


@pytest.mark.parametrize("name", ["-it's `x` $(y) a[b]*.py", "n" * 250 + "/" + "m" * 250])
def test_every_command_that_a_refusal_offers_can_be_carried_out(program: Program, name: str) -> None:
    edit(program, name)
    wait, ask = commands(edit(program, name, "s2")["permissionDecisionReason"])
    sent = program.json(*ask)
    assert (sent["to_agent"], sent["recipients"]) == ("claude-code-s1", 1)
    assert "claude-code-s2 waits for it" in sent["body"]
    call(program, "Stop")
    program.json(*wait)
    assert edit(program, name, "s2") == {}
    told = call(program, "UserPromptSubmit", prompt="Go on")["hookSpecificOutput"]["additionalContext"]
    line = next(line for line in told.split("\n") if "NUMBER" in line)
    program.json(*shlex.split(line.partition(": ")[2].replace("NUMBER", str(sent["id"])))[1:])


def test_a_refusal_names_the_address_that_only_the_hook_was_given(program: Program) -> None:
    address = program.environment["COORDINATOR_DATABASE_URL"]
    edit(program, "a.py")
    reason = edit(program, "a.py", "s2", "--url", address)["permissionDecisionReason"]
    assert [words[:2] for words in commands(reason)] == [["--url", address]] * 2


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
    assert "Read the changed files again" in reason
    for event in ("PreToolUse", "PostToolUse"):
        call(program, event, "s2", **read)
    assert edit(program, "a.py", "s2") == {}


def test_a_refusal_says_that_another_subagent_of_the_session_holds_the_file(program: Program) -> None:
    def by(subagent: str | None, session: str = "s1") -> str:
        tool_input = {"file_path": "a.py"}
        called = {} if subagent is None else {"agent_id": subagent}
        answer = call(program, "PreToolUse", session, tool_name="Edit", tool_input=tool_input, **called)
        return answer.get("hookSpecificOutput", {}).get("permissionDecisionReason", "")

    assert by("x") == ""
    assert '"a.py" is held by another subagent of this session ("s1/x") since ' in by("y")
    assert '"a.py" is held by a subagent of this session ("s1/x") since ' in by(None)
    assert '"a.py" is held by agent "claude-code-s1" since ' in by("x", "s2")


@pytest.mark.parametrize(
    ("held", "wanted", "words"),
    [
        ("src/", "src/a.py", ('"src/a.py" is held by ', ', as part of "src/", until ')),
        ("src/a.py", "src/x\ny.py", ('"src/" contains "src/a.py", which is held by ',)),
        ("src/a.py", " b.py", ('The work tree contains "src/a.py", which is held by ',)),
    ],
)
def test_a_refusal_says_how_a_lock_on_something_else_concerns_the_file(
    program: Program, held: str, wanted: str, words: tuple[str, ...]
) -> None:
    program.json("project", "create", "shop")
    program.json("file", "edit", "other", held)
    reason = edit(program, wanted)["permissionDecisionReason"]
    assert [part for part in words if part not in reason] == [], reason


def test_a_session_learns_who_is_at_work_and_then_what_is_new(program: Program) -> None:
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
def test_an_invalid_payload_is_refused_in_one_line(lone: Program, body: bytes, policy: str, code: int) -> None:
    done = lone.run("hook", "run", "--unreachable", policy, stdin=body)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("policy", "decision"), [("ask", "ask"), ("deny", "deny"), ("allow", None)])
def test_the_policy_answers_where_nothing_else_does(lone: Program, policy: str, decision: str | None) -> None:
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
    assert "did not respond" in json.dumps(answer)
    assert (stop.returncode, stop.stdout) == (0, "")


@pytest.mark.parametrize(
    ("used_s", "load", "left_s"),
    [(0.1, 0.0, 0.15), (0.1, 2.0, 0.15), (0.1, 3.0, 0.225), (5.0, 0.0, 0.1), (5.0, 1000.0, 0.3)],
)
def test_what_the_program_has_used_of_a_processor_counts_toward_the_limit(
    monkeypatch: pytest.MonkeyPatch, used_s: float, load: float, left_s: float
) -> None:
    monkeypatch.setattr(hook_run, "time", SimpleNamespace(monotonic=lambda: 1.0, process_time=lambda: used_s))
    monkeypatch.setattr(hook_run, "os", SimpleNamespace(getloadavg=lambda: (load, 0.0, 0.0), cpu_count=lambda: 2))
    clock = hook_run._Clock(0.3)
    clock.begin(10.0)
    assert clock.ends_at == pytest.approx(1.0 + 10.0 + left_s)


def test_a_configuration_that_cannot_be_read_is_answered_by_the_policy(lone: Program) -> None:
    git(lone.folder, "init", "--quiet")
    (lone.folder / "coordinator.yaml").write_text("shell: 1\n", "utf-8")
    edit = payload("PreToolUse", lone.folder, tool_name="Edit", tool_input={"file_path": "a.py"})
    answer = json.loads(lone.run("hook", "run", stdin=edit).stdout)["hookSpecificOutput"]
    assert answer["permissionDecision"] == "ask"
    assert "is not a list" in answer["permissionDecisionReason"]


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@contextmanager
def waiting(program: Program, session: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A call that waits for a.py."""
    given = program.folder / f"payload-{session}"
    file = {"file_path": str(program.folder / "a.py")}
    given.write_bytes(payload("PreToolUse", program.folder, session, tool_name="Edit", tool_input=file))
    with given.open("rb") as stdin:
        process = program.start("hook", "run", "--limit", "60s", "--wait", "1h", *options, stdin=stdin)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


TICKETS = "select count(*) = $1 from coordinator.lock_waits"


async def test_a_signal_ends_a_wait_and_its_ticket(program: Program, connection: asyncpg.Connection) -> None:
    edit(program, "a.py")
    with waiting(program, "s2") as process:
        await until_true(connection, TICKETS, 1)
        process.send_signal(signal.SIGTERM)
        await until_true(connection, TICKETS, 0)


@pytest.mark.parametrize("interface", ["database", "daemon", "sidecar", "http"])
async def test_a_call_that_is_killed_while_it_waits_soon_leaves_the_queue(
    program: Program, database_url: str, connection: asyncpg.Connection, tmp_path: Path, interface: str
) -> None:
    edit(program, "a.py")
    with ExitStack() as stack:
        options: tuple[str, ...] = ()
        if interface in ("daemon", "http"):
            daemon = stack.enter_context(Daemon(database_url))
            options = ("--url", (await daemon.ready()).url)
        elif interface == "sidecar":
            path = tmp_path / "s.sock"
            beside = stack.enter_context(
                sidecar(database_url, "--agent", "x", "--socket", str(path), "--listen", "none")
            )
            await beside.started()
            options = ("--url", f"unix://{path}")
        if interface == "http":  # the daemon itself waits
            given = payload("PreToolUse", program.folder, "s2", tool_name="Edit", tool_input={"file_path": "a.py"})
            async with http_client(options[1]) as client:
                asked = asyncio.create_task(client.post("/v1/hooks/claude-code?wait=10m&project=shop", content=given))
                await until_true(connection, TICKETS, 1)
                asked.cancel()
                await asyncio.wait([asked])
            await until_true(connection, TICKETS, 0)
            return
        with waiting(program, "s2", *options) as process:
            await until_true(connection, TICKETS, 1)
            process.kill()
            process.wait()
        # Its place ends on its own. What it was granted in the last moment goes to the next, whose wait is as long as it likes.
        bound = f"select coalesce(bool_and(expires_at <= coordinator.now_utc() + interval '{PLACE_S} seconds'), true) from coordinator.lock_waits"
        assert await connection.fetchval(bound)
        await connection.execute("update coordinator.lock_waits set expires_at = coordinator.now_utc()")
        with waiting(program, "s3", *options) as patient:
            await until_true(connection, "select bool_or(agent_name = 'claude-code-s3') from coordinator.lock_waits")
            call(program, "Stop")
            out, error = await asyncio.to_thread(patient.communicate)
            assert (patient.returncode, out, error) == (0, "", "")
        holder = "select string_agg(agent_name, ',') from coordinator.locks"
        assert await connection.fetchval(holder) == "claude-code-s3"


async def test_a_lease_that_a_killed_call_was_granted_goes_to_the_next(
    program: Program, connection: asyncpg.Connection
) -> None:
    edit(program, "a.py")
    with waiting(program, "s2") as process:
        await until_true(connection, TICKETS, 1)
        process.kill()
        process.wait()
    await connection.execute("update coordinator.lock_waits set expires_at = coordinator.now_utc() + interval '1 hour'")
    with waiting(program, "s3") as patient:
        await until_true(connection, TICKETS, 2)
        async with connection.transaction():  # s3 gets it once the time to claim it is over, and not before
            await connection.execute("select coordinator.file_leave('shop', 'claude-code-s1', 's1')")
            granted = "select string_agg(agent_name, ',') from coordinator.locks where not claimed"
            assert await connection.fetchval(granted) == "claude-code-s2"
            await connection.execute("update coordinator.locks set expires_at = now(), free_at = now()")
        assert await asyncio.to_thread(patient.communicate) == ("", "")
    assert await connection.fetchval("select string_agg(agent_name, ',') from coordinator.locks") == "claude-code-s3"


async def test_a_call_that_two_processes_make_at_once_waits_once_and_is_answered_twice(
    program: Program, connection: asyncpg.Connection
) -> None:
    edit(program, "a.py")
    with waiting(program, "s2") as one, waiting(program, "s2") as two:
        await until_true(connection, TICKETS, 1)
        await until_true(connection, "select count(*) >= 3 from pg_stat_activity where query like '%file_edit%'")
        call(program, "Stop")
        for process in (one, two):
            assert await asyncio.to_thread(process.communicate) == ("", "")
    assert await connection.fetchval("select string_agg(agent_name, ',') from coordinator.locks") == "claude-code-s2"


def test_a_session_learns_who_edits_the_same_file_in_another_work_tree(program: Program) -> None:
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
    program.folder /= "beside"
    assert '"a.py" is held by agent "claude-code-s2"' in edit(program, "a.py", "s3")["permissionDecisionReason"]


def test_work_trees_are_one_scope_where_the_option_says_so(program: Program) -> None:
    git(program.folder, "commit", "--quiet", "--allow-empty", "-m", "begin")
    git(program.folder, "worktree", "add", "--quiet", "beside")
    shared = ("--worktrees", "shared")
    assert edit(program, "beside/a.py", "s1", *shared) == {}
    assert edit(program, "a.py", "s2", *shared)["permissionDecision"] == "deny"
    assert "permissionDecision" not in edit(program, "beside/a.py", "s2", "--worktrees", "separate")
    program.environment["COORDINATOR_WORKTREES"] = "shared"
    assert edit(program, "a.py", "s3")["permissionDecision"] == "deny"


async def number(path: Path) -> bool:
    return path.exists() and path.read_text("utf-8").endswith("\n")


async def gone(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text("utf-8").rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_session_within_agent_run_ends_with_it(
    program: Program, database_url: str, connection: asyncpg.Connection
) -> None:
    program.install()
    program.constants = {"coordinator.cli.agent_run.END_S": 3600}
    (program.folder / "payload").write_bytes(payload("SessionStart", program.folder, source="startup"))
    (program.folder / "edit").write_bytes(
        payload("PreToolUse", program.folder, tool_name="Edit", tool_input={"file_path": "a.py"})
    )
    script = "coordinator hook run --limit 60s < payload > told && coordinator hook run --limit 60s < edit > leased && "
    held = "select count(*) = 1 from coordinator.locks"
    free = "select count(*) = 0 from coordinator.locks, coordinator.agents"

    done = program.run("agent", "run", "--", "sh", "-c", script + "kill -KILL $$")
    assert done.returncode == 128 + signal.SIGKILL, done.stderr
    assert await connection.fetchval(free)  # at once, without a daemon
    assert "agent" in (program.folder / "told").read_text("utf-8")

    await connection.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable parallel safe return true"
    )
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        apart = "setsid sh -c 'echo $$ > apart; exec sleep 3600' & "  # in a session of its own, as tools start commands
        tool = program.start("agent", "run", "--", "sh", "-c", script + apart + "exec sleep 3600")
        try:
            await until_true(connection, held)
            assert await connection.fetchval("select expires_at > now() + interval '1 minute' from coordinator.locks")
            await until(lambda: number(program.folder / "apart"), "the tool has started a command")
        finally:
            tool.kill()
            tool.communicate()
        started = (program.folder / "apart").read_text("utf-8").strip()
        await until(lambda: gone(started), "what the tool has started ends with it")
        await until_true(connection, free)
        # Through the daemon, the end of the tool is what counts.
        done = program.run("agent", "run", "--url", daemon.url, "--", "sh", "-c", script + "exit 3")
        assert (done.returncode, done.stderr) == (3, "")
        assert await connection.fetchval(free)


async def test_a_session_whose_hooks_go_through_a_sidecar_ends_with_it(
    program: Program, database_url: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    with sidecar(database_url, "--agent", "x", "--socket", str(path), "--listen", "none") as beside:
        await beside.started()
        call(program, "SessionStart", "s1", "--url", f"unix://{path}", source="startup")
        named = "select count(*) from coordinator.agents where process_id in (select id from coordinator.processes where kind = 'sidecar')"
        assert await connection.fetchval(named) == 2
        # One that is killed takes the sessions with it, and what they hold; the policy answers in its place.
        beside_it = ("--url", f"unix://{path}")
        assert edit(program, "a.py", "s1", *beside_it) == {}
        assert edit(program, "a.py", "s2")["permissionDecision"] == "deny"
        await connection.execute(
            "create or replace function coordinator.server_settled() returns boolean language sql stable parallel safe return true"
        )
        with Daemon(database_url) as daemon:
            await (await daemon.ready()).lead()
            beside.process.kill()
            beside.process.wait()
            await until_true(connection, "select count(*) = 0 from coordinator.agents where name <> 'claude-code-s2'")
            await until_true(connection, "select count(*) = 0 from coordinator.locks")
        assert edit(program, "a.py", "s1", *beside_it)["permissionDecision"] == "ask"
        assert edit(program, "a.py", "s2") == {}


def test_the_command_of_a_refusal_works_in_every_directory(program: Program) -> None:
    git(program.folder, "commit", "--quiet", "--allow-empty", "-m", "begin")
    git(program.folder, "worktree", "add", "--quiet", "beside")
    (program.folder / "src").mkdir()
    for name in ("src/a.py", "beside/a.py"):
        edit(program, name)
        reason = edit(program, name, "s2")["permissionDecisionReason"]
        command = commands(reason)[0]
        call(program, "Stop")
        root = program.folder
        program.folder = root / "src"
        program.json(*command)
        program.folder = root
        assert edit(program, name)["permissionDecision"] == "deny"
        assert "permissionDecision" not in edit(program, name, "s2")
        call(program, "Stop", "s2")
