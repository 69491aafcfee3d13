from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

import coordinator
from coordinator.db.database import Database
from examples.fleet import work
from tests.client.conftest import relayed
from tests.daemon import Daemon
from tests.waiting import until

ROOT = Path(__file__).parents[2]
TREE = ROOT / "coordinator"
LIMIT_S = 330
fleet = importlib.import_module("examples.fleet.__main__")


def interruptible() -> None:
    """Undo that a suite that runs in the background ignores SIGINT, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.fleet", str(TREE), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder), "COORDINATOR_DATABASE_URL": "postgresql:///?host=/nowhere"},
        start_new_session=True,
        preexec_fn=interruptible,  # noqa: PLW1509 - no threads
    )


def left_over(folder: Path) -> list[str]:
    """Command lines of the processes whose arguments or environment name the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = process.joinpath("cmdline").read_bytes()
            if bytes(folder) in words + process.joinpath("environ").read_bytes():
                found.append(words.replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


async def all_gone(folder: Path) -> None:
    await until(lambda: not left_over(folder), "every process is gone")


async def check(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the fleet to its end; judge the state at the end, and return what it recorded."""
    record = folder / "record.json"
    run = start(folder, "--record", str(record), *arguments)
    out, complaint = await anyio.to_thread.run_sync(run.communicate, None, LIMIT_S)
    told = out.decode()
    assert run.returncode == 0, (told, complaint)
    assert "Nothing lost." in told
    found: dict[str, Any] = json.loads(record.read_bytes())
    assert found["missing"] == 0, "an event was lost, came twice, or out of order"
    assert faults(found["outcome"]) == []
    await all_gone(folder)
    assert list(folder.glob("coordinator-fleet-*")) == []
    return found


@cache
def true_results() -> dict[str, dict[str, int]]:
    return {str(number): work.count(TREE, files) for number, files in enumerate(work.shares(TREE), 1)}


def faults(outcome: dict[str, Any]) -> list[str]:
    """List what is wrong with the state at the end; what is right is counted here again."""
    wrong = []
    counted = true_results()
    shares = range(1, work.SHARES + 1)
    if outcome["results"] != counted:
        wrong.append("an artifact has another result")
    total: Counter[str] = Counter()
    for result in counted.values():
        total.update(result)
    if outcome["report"] != dict(total) or not outcome["signed_off"]:
        wrong.append("the manager signed off something else")
    jobs = Counter((job["type"], job["payload"]["share"], job["status"]) for job in outcome["jobs"])
    once = {(kind, number, "completed"): 1 for kind in ("code", "review") for number in shares}
    if jobs != once | {("code", 1, "completed"): 2, ("review", 1, "completed"): 2}:
        wrong.append(f"not once, and the rejected share twice: {jobs}")
    said = [message["text"] for message in outcome["messages"]]
    if [message["seq"] for message in outcome["messages"]] != list(range(1, len(said) + 1)):
        wrong.append("the conversation has gaps")
    expected = Counter(f"Share {number} {what}" for number in shares for what in ("is counted.", "passed."))
    expected += Counter(["Share 1 is counted.", "Share 1 is rejected: todos missing."])
    if Counter(said[1:-1]) != expected or "Count" not in said[0] or "Signed off" not in said[-1]:
        wrong.append(f"something else was said: {said}")
    return wrong


def test_the_example_uses_the_public_client_only() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "examples" / "fleet").glob("*.py"))
    imports = [line for line in source.splitlines() if re.match(r"\s*(import|from) coordinator\b", line)]
    assert {line.split()[1] for line in imports} == {"coordinator", "coordinator.errors"}


def without_layout(code: str) -> str:
    """A part of a function breaks its lines elsewhere, since it has less indent."""
    return re.sub(r",(?=[)\]}])", "", "".join(code.split()))


def test_the_tutorial_shows_the_program_as_it_is() -> None:
    tutorial = (ROOT / "docs" / "tutorials" / "fleet.md").read_text("utf-8")
    program = [without_layout(path.read_text("utf-8")) for path in (ROOT / "examples" / "fleet").glob("*.py")]
    shown = re.findall(r"^```python\n(.*?)^```$", tutorial, re.DOTALL | re.MULTILINE)
    assert len(shown) >= 6
    assert [block for block in shown if not any(without_layout(block) in text for text in program)] == []
    assert "make demo" in tutorial
    assert "python -m examples.fleet ." in (ROOT / "Makefile").read_text("utf-8"), (
        "and make demo runs what is tested here"
    )


async def test_the_fleet_finishes_although_a_coder_is_killed_and_the_daemon_and_its_server_restart(
    short_path: Path,
) -> None:
    found = await check(short_path)
    assert found["restarted"]
    assert found["before"]
    assert found["outcome"]["messages"][: len(found["before"])] == found["before"]


def test_the_judgement_sees_each_fault() -> None:
    """A run as it should be passes, and each change of it fails."""
    shares, results = range(1, work.SHARES + 1), true_results()
    total: Counter[str] = Counter()
    for result in results.values():
        total.update(result)
    said = ["Count", *(f"Share {number} is counted." for number in shares), "Share 1 is rejected: todos missing."]
    said += ["Share 1 is counted.", *(f"Share {number} passed." for number in shares), "Signed off"]
    done = [(kind, number) for kind in ("code", "review") for number in (*shares, 1)]
    good: dict[str, Any] = {
        "results": results,
        "report": dict(total),
        "signed_off": True,
        "jobs": [{"type": kind, "payload": {"share": number}, "status": "completed"} for kind, number in done],
        "messages": [{"seq": seq, "text": text} for seq, text in enumerate(said, 1)],
    }
    assert faults(good) == []
    for change in (
        {"results": {**results, "1": {}}},
        {"report": {}},
        {"signed_off": False},
        {"jobs": good["jobs"][1:]},
        {"jobs": [*good["jobs"], good["jobs"][0]]},
        {"jobs": [{**job, "status": "failed"} for job in good["jobs"]]},
        {"messages": good["messages"][1:]},
        {"messages": good["messages"][:-1]},
        {"messages": [*good["messages"][:-1], {"seq": len(said), "text": "Share 2 passed."}]},
    ):
        assert faults({**good, **change}), change


@pytest.mark.long
async def test_the_fleet_keeps_its_promises_on_a_given_database(tmp_path: Path, database_url: str) -> None:
    with Daemon(database_url) as daemon:
        await daemon.lead()
        await check(tmp_path, "--url", database_url)
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select array_agg(name) from coordinator.projects") == ["default"]
    await connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_fleet_that_is_ended_leaves_no_process_behind(
    short_path: Path, database_url: str, number: signal.Signals
) -> None:
    """The one that is killed has a daemon and a server of its own, which must end, too."""
    run = start(short_path, *(() if number == signal.SIGKILL else ("--url", database_url)))

    async def working() -> bool:
        assert run.poll() is None
        return any("examples.fleet.coder" in line for line in left_over(short_path))

    try:
        await until(working, "agents run", every_s=0.05)
    finally:
        run.send_signal(number)
        said = await anyio.to_thread.run_sync(run.communicate, None, LIMIT_S)
    await all_gone(short_path)
    assert number == signal.SIGKILL or (run.returncode, said[1]) == (130, b"")


async def test_a_fleet_that_takes_too_long_says_so_and_ends_its_processes(
    tmp_path: Path,
    db: Database,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fleet, "LIMIT_S", 1.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert await fleet.main(TREE, database_url, None) == 1, "nothing relays here, so nothing can come of it"
    assert "Failed: not finished within 1 seconds" in capsys.readouterr().out
    await all_gone(tmp_path)


async def test_a_process_that_ends_too_early_is_reported(tmp_path: Path, db: Database, database_url: str) -> None:
    async with coordinator.connect(database_url, project="fleet") as client, relayed(db):
        await client.projects.create("fleet")
        with fleet.processes(tmp_path) as start_one:
            play = fleet.Fleet(client, tmp_path, start_one)
            after = await client.events.head()
            failure = await play.run("postgresql:///x?host=/nowhere", "fleet", str(TREE), after)
    assert " failed:\n" in failure
    assert "DatabaseUnavailable" in failure
    await all_gone(tmp_path)


async def test_a_process_that_has_failed_by_the_first_check_is_reported(tmp_path: Path) -> None:
    play = fleet.Fleet(None, tmp_path, None)
    with subprocess.Popen(["false"]) as process:
        process.wait()
        play._processes["manager"] = process
        (tmp_path / "manager.log").write_text("why")
        assert await play._watch() == "manager failed:\nwhy"


def test_a_database_that_cannot_be_reached_is_reported_in_one_line_with_a_hint(tmp_path: Path) -> None:
    run = start(tmp_path, "--url", f"postgresql://ann@/fleet?host={tmp_path}")
    _, said = run.communicate(timeout=LIMIT_S)
    first, *hint = said.decode().splitlines()
    assert run.returncode == 1
    assert "no answer from the database" in first
    assert hint
    assert "Traceback" not in said.decode()


@pytest.mark.parametrize("make", [lambda path: path, lambda path: path / "none"])
def test_a_tree_that_is_too_small_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    (tmp_path / "one.py").write_text("x = 1\n")
    run = subprocess.run(
        [sys.executable, "-m", "examples.fleet", str(make(tmp_path))], capture_output=True, cwd=ROOT, check=False
    )
    assert run.returncode == 2
    assert b"fewer than 16 files; give a larger source tree" in run.stderr
