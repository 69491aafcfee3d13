"""The log on a streaming standby: readable before its promotion, and numbered without a loss after it."""

from __future__ import annotations

from pathlib import Path

from coordinator import embedded
from coordinator.db.call import call
from coordinator.operations import events
from coordinator.operations.work import RelayRecover, RelayStep
from tests.daemon import log_of, opened
from tests.faults.forks import standby
from tests.waiting import until

EMIT = "select coordinator.event_emit('default', 'custom.x', $1)"


async def test_a_standby_reads_the_log_and_continues_it_after_its_promotion(data_dir: Path) -> None:
    async with (
        embedded.run(data_dir, settings={"fsync": "off"}) as server,
        opened(server.dsn) as writer,
        opened(server.dsn) as late,
        opened(server.dsn) as lost,
    ):
        await call(writer, RelayRecover())
        async with standby(server, data_dir.with_name("standby")) as url:
            await late.execute("begin")
            await late.execute(EMIT, "late")
            await lost.execute("begin")
            await lost.execute(EMIT, "in progress at the promotion")
            for n in range(20):
                await writer.execute(EMIT, f"numbered {n}")
                await call(writer, RelayStep())
            await late.execute("commit")
            await writer.execute(EMIT, "waiting")
            end = await writer.fetchval("select pg_current_wal_lsn()::text")
            async with opened(url) as reader:

                async def replayed() -> bool:
                    return bool(await reader.fetchval("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", end))

                await until(replayed, "the standby has all")
                page = await call(reader, events.Since())
                assert [event.key for event in page] == [f"numbered {n}" for n in range(20)]
                assert await reader.fetchval("select pg_promote()")
            async with opened(url) as promoted:
                for n in range(20):
                    await promoted.execute(EMIT, f"new {n}")
                    await call(promoted, RelayStep())
            log = await log_of(url)
            assert [event["seq"] for event in log] == list(range(1, 43))
            keys = [event["key"] for event in log]
            assert keys[:20] == [f"numbered {n}" for n in range(20)]
            assert keys[20:23] == ["late", "waiting", "new 0"]
            assert keys[23:] == [f"new {n}" for n in range(1, 20)]
