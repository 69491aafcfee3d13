"""Two agents at once, and agents that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from coordinator.bridge import verification
from tests.bridge.conftest import Agent
from tests.daemon import opened
from tests.waiting import DEADLINE_S, until_true

TWO = b'{"features": [{"id": "F1"}, {"id": "F2"}]}'
DONE = ("--status", "done", "--passes", "true")
HOLD = """
select 1 from coordinator.documents d join coordinator.projects p on p.id = d.project_id
where p.name = $1 and d.kind = 'features' for update of d"""
WAITING = """
select count(*) = 2 from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and query like '%document_put%'"""


def test_of_two_agents_that_set_the_last_features_at_once_just_one_completes_the_project(agent: Agent) -> None:
    """Both have read the list in which the other feature is open when they write."""
    agent.says("import", stdin=TWO)

    async def race() -> list[subprocess.Popen[str]]:
        async with opened(agent.database_url) as holder, opened(agent.database_url) as watcher, holder.transaction():
            assert await holder.fetchval(HOLD, agent.project) == 1
            started = [agent.start("feature", "set", name, *DONE) for name in ("F1", "F2")]
            await until_true(watcher, WAITING)
        return started

    ended = [(process.communicate(timeout=DEADLINE_S), process.returncode) for process in asyncio.run(race())]
    assert [code for _, code in ended] == [0, 0], ended
    assert sum("Auto-signaling COMPLETED" in out for (out, _), _ in ended) == 1
    assert agent.signal("COMPLETED") == "true"
    assert agent.features().count('"status":"done","passes":true') == 2


def test_two_agents_that_use_a_project_first_create_it_once(agent: Agent) -> None:
    started = [agent.start("signal", key, "1") for key in "ab"]
    assert [process.communicate(timeout=DEADLINE_S)[1] for process in started] == ["", ""]
    assert [agent.signal(key) for key in "ab"] == ["1", "1"]


def test_two_agents_that_verify_at_once_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / verification.FILE
    file.write_text('{"requests": [{"feature_id": "F1"}, {"feature_id": "F2"}]}', "utf-8")
    replacing, waiting, go = threading.Event(), threading.Event(), threading.Event()
    replace = os.replace

    def slowly(*paths: Path) -> None:
        replacing.set()
        assert go.wait(DEADLINE_S)
        replace(*paths)

    def wait(_: float) -> None:
        waiting.set()
        assert go.wait(DEADLINE_S)

    monkeypatch.setattr("coordinator.bridge.verification.os.replace", slowly)
    monkeypatch.setattr("coordinator.bridge.verification.time.sleep", wait)
    monkeypatch.setattr(verification, "TURN_S", DEADLINE_S)
    first = threading.Thread(target=verification.update, args=(file, "F1", "pass"))
    second = threading.Thread(target=verification.update, args=(file, "F2", "fail"))
    first.start()
    assert replacing.wait(DEADLINE_S)
    second.start()
    assert waiting.wait(DEADLINE_S), "it did not wait for the first one"
    go.set()
    first.join(DEADLINE_S)
    second.join(DEADLINE_S)
    text = file.read_text("utf-8")
    assert '"status": "pass"' in text
    assert '"status": "fail"' in text


def test_a_program_that_holds_the_lock_does_not_block_others_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / verification.FILE).write_text('{"requests": []}', "utf-8")
    monkeypatch.setattr(verification, "TURN_S", -1.0)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        verification._take_turn(folder)
        with pytest.raises(verification.BridgeError, match="another program has been changing"):
            verification.update(tmp_path / verification.FILE, "F1", "pass")
    finally:
        os.close(folder)


def test_an_agent_that_is_killed_leaves_the_file_unchanged(tmp_path: Path) -> None:
    file = tmp_path / verification.FILE
    before = '{"requests": [{"feature_id": "F1"}]}'
    file.write_text(before, "utf-8")
    killed = f"""
import os, pathlib, signal
from coordinator.bridge import verification
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
verification.update(pathlib.Path({str(file)!r}), "F1", "x" * 1000)
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -signal.SIGKILL
    assert file.read_text("utf-8") == before
    assert verification.update(file, "F1", "pass")
    assert (
        file.read_text("utf-8")
        == '{\n  "requests": [\n    {\n      "feature_id": "F1",\n      "status": "pass"\n    }\n  ]\n}'
    )
    assert [path.name for path in tmp_path.iterdir()] == [verification.FILE]
