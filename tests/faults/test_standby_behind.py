"""Positions on a standby that replays what it gets: a read there waits until it includes what was written on the primary."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import coordinator
from coordinator import embedded
from coordinator.config import Config
from coordinator.db.call import call
from coordinator.db.database import Database
from coordinator.errors import DatabaseUnavailable, WaitTimedOut
from coordinator.operations.positions import Included
from coordinator.operations.work import RelayRecover, RelayStep
from tests.daemon import opened
from tests.faults.test_log_promoted import EMIT, standby
from tests.waiting import DEADLINE_S, until, until_true


async def test_a_standby_is_read_when_it_includes_a_position(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.db.call.AT_LEAST_S", DEADLINE_S)
    async with (
        embedded.run(data_dir, settings={"fsync": "off"}) as server,
        opened(server.dsn) as relay,
        opened(server.dsn) as late,
    ):
        await call(relay, RelayRecover())
        async with (
            standby(server, data_dir.with_name("standby")) as url,
            opened(url) as replay,
            coordinator.connect(server.dsn) as writer,
            coordinator.connect(url) as reader,
        ):
            for n in range(20):
                await writer.signals.set("k", n)
                reads = reader.at_least(writer.position or "")
                assert (await reads.signals.get("k")).value == n
                await call(relay, RelayStep())
                assert (await reads.events.since(keys=["k"]))[-1].data["value"] == n
                cursor = await writer.events.head()
                assert await reader.at_least(cursor).events.head() == cursor

            job = (await writer.jobs.enqueue("t", {"n": 1})).id
            reads = reader.at_least(writer.position or "")
            assert (await reads.jobs.show(job)).status == "queued"
            assert [one.id for one in await reads.jobs.list(payload={"n": 1}, words="n")] == [job]
            assert (await reads.jobs.why(job)).cause == "no_worker"
            assert [one.queued for one in await reads.jobs.stats()] == [1]
            assert (await reads.jobs.attempts(job), await reads.workers.list()) == ([], [])

            with pytest.raises(DatabaseUnavailable) as unwritten:
                await reader.signals.set("k", 20)
            with pytest.raises(DatabaseUnavailable) as unheard:
                async with Database.open(url, Config()) as database, database.wake():
                    pass
            assert ["primary" in (raised.value.hint or "") for raised in (unwritten, unheard)] == [True, True]

            await replay.execute("select pg_wal_replay_pause()")
            await until_true(replay, "select pg_get_wal_replay_pause_state() = 'paused'")
            await writer.signals.set("k", "behind")
            waiting = asyncio.ensure_future(reader.at_least(writer.position or "").signals.get("k"))
            for _ in range(10):
                assert (await reader.signals.get("k")).value == 19
                await asyncio.sleep(0.005)
            assert not waiting.done()
            await replay.execute("select pg_wal_replay_resume()")
            assert (await waiting).value == "behind"

            # One that is open on the primary is not included, although later ones are.
            await late.execute("begin")
            await late.execute(EMIT, "late")
            position = await late.fetchval("select coordinator.position_now()")
            await writer.signals.set("k", "later")
            await reader.at_least(writer.position or "").signals.get("k")
            assert not await call(replay, Included(position=position, in_log=False))
            await late.execute("commit")
            await until(lambda: call(replay, Included(position=position, in_log=False)), "the standby includes it")
            monkeypatch.setattr("coordinator.db.call.AT_LEAST_S", 0.05)
            with pytest.raises(WaitTimedOut):  # it has no number
                await reader.at_least(position).events.head()
