"""Several daemons on one data directory: one owns the server, the others attach and take over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator import embedded
from coordinator.embedded import ownership, supervisor
from coordinator.errors import DatabaseUnavailable
from tests.embedded.process import QUICK, Daemon, query, query_when_up, soon


async def test_second_daemon_attaches_and_leaves_the_server_alone(made: Path) -> None:
    async with embedded.run(made, settings=QUICK) as owner:
        with Daemon(made) as second:
            answer = second.answer()
            assert answer["owned"] is False
            assert answer["dsn"] == owner.dsn
            assert answer["pid"] == owner.pid
            assert second.leave() == 0
            assert await query(owner.dsn, "select 1") == 1
            assert embedded.find(made) is not None
        # Leaving the helper's block ends the server; the supervisor starts it again.
        assert await query_when_up(owner.dsn, "select 1") == 1


async def test_attached_daemon_takes_over_when_the_owner_is_killed(made: Path) -> None:
    with Daemon(made) as owner:
        dsn = owner.answer()["dsn"]
        await query(dsn, "create table kept_11 as select 1 as it")
        async with embedded.run(made) as attached:
            assert not attached.owned
            owner.kill()
            await soon(lambda: (new := embedded.find(made)) and new.pid != attached.pid, "taken over")
            assert await query_when_up(attached.dsn, "select it from kept_11") == 1
    assert embedded.find(made) is None, "it was stopped by its new owner"


async def test_attached_daemon_takes_over_when_the_owner_leaves(made: Path) -> None:
    with Daemon(made) as owner:
        owner.answer()
        with Daemon(made) as attached:
            dsn = attached.answer()["dsn"]
            pid = embedded.find(made)
            assert owner.leave() == 0
            await soon(lambda: (new := embedded.find(made)) and pid and new.pid != pid.pid, "taken over")
            assert await query_when_up(dsn, "select 1") == 1
            assert attached.leave() == 0
            assert attached.server_pids == []


async def test_one_of_several_attached_daemons_takes_over(tmp_path: Path) -> None:
    with Daemon(tmp_path) as owner, Daemon(tmp_path) as second, Daemon(tmp_path) as third:
        answers = [daemon.answer() for daemon in (owner, second, third)]
        assert [answer["owned"] for answer in answers].count(True) == 1, "all at once, on an empty folder"
        first = next(d for d, answer in zip((owner, second, third), answers, strict=True) if answer["owned"])
        first.kill()
        await soon(lambda: (new := embedded.find(tmp_path)) and new.pid != answers[0]["pid"], "taken over")
        assert await query_when_up(answers[0]["dsn"], "select 1") == 1
        assert [d.process.poll() for d in (owner, second, third)].count(None) == 2


async def test_owner_without_a_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "ATTACH_TIMEOUT_S", 0.1)
    lock = ownership.try_acquire(tmp_path)
    assert lock
    with lock:
        with pytest.raises(DatabaseUnavailable, match=f"held by process {os.getpid()}") as caught:
            async with embedded.run(tmp_path):
                pass
        assert caught.value.hint


async def test_second_block_in_the_same_process_attaches(made: Path) -> None:
    async with embedded.run(made, settings=QUICK) as first, embedded.run(made) as second:
        assert (first.owned, second.owned) == (True, False)
        assert await query(second.dsn, "select 1") == 1
