from __future__ import annotations

import json
import signal
import subprocess
from uuid import uuid4

import anyio
import pytest

from coordinator.db.database import Database
from coordinator.operations import locks
from tests.cli.conftest import Program
from tests.client.conftest import relayed
from tests.waiting import DEADLINE_S, until

NOBODY = "00000000-0000-0000-0000-000000000000"


def register(program: Program, name: str) -> str:
    return program.text("agent", "register", name, "--ttl", "1h").strip()


def test_locks_are_acquired_shown_renewed_and_released(program: Program) -> None:
    coder = register(program, "coder")
    token = program.text("lock", "acquire", "src/app.py", "docs/", "--agent", coder, "--ttl", "5m").strip()
    assert int(token) > 0
    listed = program.json("lock", "list")
    assert [(lock["resource"], lock["agent"], lock["fencing_token"]) for lock in listed] == [
        ("docs/", "coder", int(token)),
        ("src/app.py", "coder", int(token)),
    ]
    assert [lock["resource"] for lock in program.json("lock", "list", "--under", "src")] == ["src/app.py"]
    assert program.json("lock", "list", "--agent", "coder") == program.json("lock", "list", "--agent", coder) == listed
    program.fails(3, "lock", "list", "--agent", str(uuid4()))
    assert program.json("lock", "show", "src/")[0]["resource"] == "src/app.py"
    assert "coder" in program.text("lock", "list")
    own = ("src/app.py", "docs/", "--agent", coder, "--token", token)
    assert len(program.json("lock", "renew", *own, "--ttl", "10m")) == 2
    assert program.json("lock", "release", *own) == {"released": 2}
    error = program.fails(4, "lock", "release", *own)
    assert "nobody holds it" in error["message"]
    program.fails(3, "lock", "show", "src/app.py")


def test_a_repeated_request_id_gets_the_same_response(program: Program) -> None:
    coder, request = register(program, "coder"), str(uuid4())
    line = ("lock", "acquire", "a", "--agent", coder, "--request-id", request)
    assert program.json(*line)[0]["fencing_token"] == program.json(*line)[0]["fencing_token"]


def test_a_lock_of_another_is_a_conflict_that_names_it(program: Program) -> None:
    coder, tester = register(program, "coder"), register(program, "tester")
    token = program.text("lock", "acquire", "src/", "--agent", coder).strip()
    error = program.fails(4, "lock", "acquire", "src/a.py", "--agent", tester)
    assert error["detail"]["agent"] == "coder"
    assert "directive send" in error["hint"]
    error = program.fails(4, "lock", "renew", "src/", "--agent", tester, "--token", token)
    assert "coder" in error["message"]
    shared = ("lock", "acquire", "docs/", "--shared", "--agent")
    assert program.json(*shared, coder)
    assert program.json(*shared, tester)
    slots = ("lock", "acquire", "name:gpu", "--slots", "2", "--agent")
    assert {program.json(*slots, coder)[0]["slot"], program.json(*slots, tester)[0]["slot"]} == {1, 2}


def test_a_broken_lock_is_free_and_its_reason_is_kept(program: Program) -> None:
    coder, tester = register(program, "coder"), register(program, "tester")
    token = program.text("lock", "acquire", "a", "--agent", coder).strip()
    program.fails(2, "lock", "break", "a")
    assert program.json("--actor", "boss", "lock", "break", "a", "--reason", "stuck")["broken"] == 1
    program.fails(3, "lock", "break", "a", "--reason", "stuck")
    program.json("lock", "acquire", "a", "--agent", tester)
    error = program.fails(4, "lock", "renew", "a", "--agent", coder, "--token", token)
    assert error["detail"]["agent"] == "tester"


def test_bad_input_is_rejected_with_a_hint_and_changes_nothing(program: Program) -> None:
    coder = register(program, "coder")
    acquire = ("lock", "acquire", "--agent", coder)
    for bad in ("", "a/../b", "/etc/passwd", "src/[a", "a" * 2000):
        program.fails(5, *acquire, bad)
    program.fails(5, *acquire, "a", "--ttl", "1000d")
    program.fails(5, *acquire, "a", "--ttl", "soon")
    program.fails(5, *acquire, *(f"f{n}" for n in range(10_000)))
    program.fails(3, "lock", "acquire", "a", "--agent", NOBODY)
    program.fails(2, "lock", "acquire", "--agent", coder)
    assert "coder" in program.fails(3, "lock", "acquire", "a", "--agent", "coder-l")["hint"]
    program.fails(5, "lock", "acquire", "a", "--agent", "")
    program.fails(2, "lock", "run", "a")
    program.fails(2, "lock", "run", "--", "true")
    program.fails(2, "lock", "check")
    assert program.json("lock", "list") == []


async def test_a_wait_ends_with_the_lock_or_with_8(program: Program, db: Database) -> None:
    coder, tester = register(program, "coder"), register(program, "tester")
    token = program.text("lock", "acquire", "a", "--agent", coder, "--ttl", "1h").strip()
    program.fails(8, "lock", "acquire", "a", "--agent", tester, "--wait", "1s")
    async with relayed(db):
        process = program.start("lock", "acquire", "a", "--agent", tester, "--wait", "1m", "-o", "text")
        await until(lambda: waiters(db), "it waits")
        program.json("lock", "release", "a", "--agent", coder, "--token", token)
        out, err = await anyio.to_thread.run_sync(process.communicate)
    assert (process.returncode, err) == (0, "")
    assert int(out) > int(token)


async def waiters(db: Database) -> int:
    return len(await db.run(locks.ListWaiting(project="default", resource="a")))


@pytest.mark.slow
async def test_ctrl_c_and_sigterm_leave_the_queue(program: Program, db: Database) -> None:
    coder, tester = register(program, "coder"), register(program, "tester")
    program.json("lock", "acquire", "a", "--agent", coder, "--ttl", "1h")
    for number in (signal.SIGINT, signal.SIGTERM):
        process = program.start("lock", "acquire", "a", "--agent", tester, "--wait", "1h")
        await until(lambda: waiters(db), "it waits")
        process.send_signal(number)
        assert await anyio.to_thread.run_sync(process.communicate) == ("", "")
        assert process.returncode == 128 + number
        assert await waiters(db) == 0


def test_check_says_free_mine_or_who_has_it_and_how_to_ask(program: Program) -> None:
    coder = register(program, "coder")
    program.json("lock", "acquire", "src/", "--agent", coder)
    assert program.json("lock", "check", "docs/a.md")[0]["state"] == "free"
    assert program.json("lock", "check", "src/a.py", "--agent", coder)[0]["state"] == "mine"
    assert program.json("lock", "check", "src/a.py", "--agent", "coder")[0]["state"] == "mine"
    for who in ([], ["--agent", "tester"], ["--agent", NOBODY]):
        done = program.run("lock", "check", "docs/a.md", "src/a.py", *who)
        assert done.returncode == 4
        assert [check["state"] for check in json.loads(done.stdout)] == ["free", "held"]
        error = json.loads(done.stderr)["error"]
        assert 'locked by agent "coder"' in error["message"]
        assert "until 20" in error["message"]
        assert "--to-agent coder" in error["hint"]
    text = program.run("lock", "check", "src/a.py", "src/b.py", "-o", "text")
    assert [line.split()[0] for line in text.stdout.splitlines()] == ["PATH", "src/a.py", "src/b.py"]
    assert "and 1 more" in text.stderr


def test_check_by_name_knows_all_agents_of_the_name_but_not_those_who_share(program: Program) -> None:
    first, second, other = register(program, "coder"), register(program, "coder"), register(program, "tester")
    program.json("lock", "acquire", "a", "--agent", first)
    program.json("lock", "acquire", "b", "--agent", second)
    program.json("lock", "acquire", "c", "--agent", first, "--shared", "--ttl", "1h")
    assert [c["state"] for c in program.json("lock", "check", "a", "b", "c", "--agent", "coder")] == ["mine"] * 3
    program.json("lock", "acquire", "c", "--agent", other, "--shared")
    assert program.run("lock", "check", "a", "b", "c", "--agent", "coder").returncode == 4


def test_check_reads_names_of_any_kind_from_standard_input(program: Program) -> None:
    coder = register(program, "coder")
    names = ["with space.py", "app/[id]/*.tsx", "name:odd", "übung"]
    for name in names:
        program.json("lock", "acquire", f"path:{name}", "--agent", coder)
        assert program.run("lock", "check", "--stdin0", stdin=f"free\0{name}\0".encode()).returncode == 4
    assert program.json("lock", "check", "--stdin0", stdin=b"app/i/x.tsx\0" + b"x\0" * 2500)[0]["state"] == "free"
    assert program.json("lock", "check", "--stdin0") == []
    program.fails(5, "lock", "check", "--stdin0", stdin=b"\xff\0")


def test_check_fails_closed(lone: Program) -> None:
    lone.fails(7, "lock", "check", "a")
    lone.fails(7, "lock", "check", "a", "--url", "postgresql:///x?host=/nowhere")


@pytest.mark.slow
def test_check_imports_nothing_that_it_does_not_need(program: Program) -> None:
    code = "import sys; from coordinator.cli.main import _run; code = _run(sys.argv[1:]); print(code, *sys.modules)"
    done = subprocess.run(
        [program.command()[0], "-c", code, "lock", "check", "a"],
        check=True,
        capture_output=True,
        text=True,
        env=program.environment,
        timeout=DEADLINE_S,
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "0" in loaded
    slow = {"coordinator.client", "coordinator.cli.lock_run", "structlog", "rich", "anyio", "yaml", "starlette"}
    assert loaded & slow == set()
