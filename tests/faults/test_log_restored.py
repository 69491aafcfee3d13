"""The log after a real dump and restore into another cluster, where transaction ids mean nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

from coordinator import embedded
from coordinator.db.call import call
from coordinator.operations import events
from coordinator.operations.work import RelayRecover, RelayStep
from tests.daemon import Daemon, drained, log_of, opened

EMIT = "select coordinator.event_emit('default', 'custom.x', $1)"


def restore(source: str, target: str, bin_dir: Path) -> None:
    """Copy a database, through a pipe."""
    dump = subprocess.run([bin_dir / "pg_dump", "--format=custom", source], capture_output=True, check=True)
    subprocess.run(
        [bin_dir / "pg_restore", "--no-owner", "--no-acl", "--exit-on-error", f"--dbname={target}"],
        input=dump.stdout,
        check=True,
    )


async def test_a_restored_log_keeps_its_events_and_numbers_what_had_no_number(
    database_url: str, tmp_path: Path
) -> None:
    async with opened(database_url) as source, opened(database_url) as late, opened(database_url) as lost:
        await call(source, RelayRecover())
        await late.execute("begin")
        await late.execute(EMIT, "late")
        await lost.execute("begin")
        await lost.execute(EMIT, "never committed")
        for n in range(30):
            await source.execute(EMIT, f"numbered {n}")
            await call(source, RelayStep())
        old = await call(source, events.Since(limit=10_000))
        await late.execute("commit")
        async with source.transaction():
            for n in range(3):
                await source.execute(EMIT, f"waiting {n}")
        async with embedded.run(tmp_path / "data", settings={"fsync": "off"}) as server:
            restore(database_url, server.dsn, server.bin_dir)
            await lost.execute("rollback")
            with Daemon(server.dsn) as daemon:
                await daemon.ready()
                await daemon.logged("relay.recovered")
                async with opened(server.dsn) as target:
                    for n in range(30):  # their transaction ids may be those of old events
                        await target.execute(EMIT, f"new {n}")
                    await drained(server.dsn, 64)
                    log = await log_of(server.dsn)
                    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
                    keys = [event["key"] for event in log if event["type"] == "custom.x"]
                    assert keys[:30] == [f"numbered {n}" for n in range(30)]
                    assert keys[30:34] == ["late", "waiting 0", "waiting 1", "waiting 2"]
                    assert keys[34:] == [f"new {n}" for n in range(30)]
                    assert [e.seq for e in await call(target, events.Since(after=old[3].cursor))][:2] == [5, 6]
                    beyond = old[-1].cursor.replace(f".{len(old)}", f".{len(old) + 1}")
                    reset, *rest = await call(target, events.Since(after=beyond))
                    assert (reset.type, reset.data["reason"], rest) == ("reset", "restored", [])
                    page = await call(target, events.Since(limit=len(old)))
                    assert [(e.seq, e.key, e.transaction, e.more) for e in page] == [
                        (e.seq, e.key, e.transaction, e.more) for e in old
                    ]
