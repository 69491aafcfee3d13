"""All data survives when any process is killed at any moment, whatever it leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest

from coordinator import embedded
from coordinator.embedded import processes
from coordinator.errors import ConfigurationError
from tests.embedded.process import Daemon, query, query_when_up, soon, until
from tests.waiting import DEADLINE_S

BUSY = "select sum(i) from generate_series(1, 100000000000) i"  # never checks whether the postmaster runs


def renewed(data_dir: Path, old_pid: int) -> bool:
    """Return whether a new postmaster runs."""
    found = embedded.find(data_dir)
    return found is not None and found.pid != old_pid


def log_of(data_dir: Path) -> str:
    return "".join(path.read_text() for path in sorted((data_dir / "postgres" / "log").glob("postgresql-*.log")))


def logged_since(before: str, data_dir: Path) -> str:
    """Return the lines that were not there before, each of which has its time; a start removes the oldest files."""
    known = {*before.splitlines()}
    return "\n".join(line for line in log_of(data_dir).splitlines() if line not in known)


async def busy_backend(daemon: Daemon, dsn: str) -> subprocess.Popen[bytes]:
    """Start a client whose backend computes endlessly; return the client."""
    found = embedded.find(daemon.data_dir)
    assert found
    client = subprocess.Popen(
        [str(found.bin_dir / "psql"), dsn, "-Xc", f"set max_parallel_workers_per_gather = 0; {BUSY}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with anyio.fail_after(DEADLINE_S):
        while not await query(dsn, "select count(*) - 1 from pg_stat_activity where query like '%100000000000%'"):
            await anyio.sleep(0.01)
    return client


async def test_killed_daemon_takes_its_server_down_cleanly(made: Path) -> None:
    with Daemon(made) as daemon:
        dsn = daemon.answer()["dsn"]
        await query(dsn, "create table kept_2 as select 1 as it")
        before = log_of(made)
        daemon.kill()
        until(lambda: not daemon.server_pids, "the server ended")
        since = logged_since(before, made)
        assert "received fast shutdown request" in since
        assert "database system is shut down" in since
        assert embedded.find(made) is None


async def test_start_right_after_a_killed_daemon_waits_for_the_old_server(made: Path) -> None:
    rows = 0
    async with embedded.run(made):
        pass  # it recovers from what another test did to it
    before = log_of(made)
    for _ in range(2):
        with Daemon(made) as daemon:
            answer = daemon.answer()
            assert "error" not in answer, answer
            await query(answer["dsn"], "create table if not exists kept_3 (it int)")
            assert await query(answer["dsn"], "select count(*) from kept_3") == rows
            await query(answer["dsn"], "insert into kept_3 select i from generate_series(1, 20000) i")
            rows += 20000
            daemon.kill()
            async with embedded.run(made) as server:
                assert server.owned
                assert await query(server.dsn, "select count(*) from kept_3") == rows
    assert "was not properly shut down" not in logged_since(before, made)


async def test_killed_postmaster_is_restarted_with_all_data(made: Path) -> None:
    async with embedded.run(made) as server:
        await query(server.dsn, "create table kept_4 as select 1 as it")
        os.kill(server.pid, signal.SIGKILL)
        await soon(partial(renewed, made, server.pid), "a new postmaster")
        assert await query_when_up(server.dsn, "select it from kept_4") == 1


async def test_killed_postmaster_is_restarted_although_its_backends_continue(made: Path) -> None:
    with Daemon(made) as daemon:
        answer = daemon.answer()
        await query(answer["dsn"], "create table kept_5 as select 1 as it")
        client = await busy_backend(daemon, answer["dsn"])
        try:
            os.kill(int(answer["pid"]), signal.SIGKILL)
            await soon(partial(renewed, made, answer["pid"]), "a new postmaster")
            assert await query_when_up(answer["dsn"], "select it from kept_5") == 1
        finally:
            client.kill()
            client.wait()


async def test_postmaster_killed_repeatedly_is_restarted_each_time(made: Path) -> None:
    async with embedded.run(made) as server:
        await query(server.dsn, "create table kept_6 (it int)")
        for round_count in range(2):
            await query_when_up(server.dsn, f"insert into kept_6 values ({round_count})")
            await soon(lambda: embedded.find(made) is not None, "recorded")
            found = embedded.find(made)
            assert found
            os.kill(found.pid, signal.SIGKILL)
            await soon(partial(renewed, made, found.pid), "a new one")
        assert await query_when_up(server.dsn, "select count(*) from kept_6") == 2


async def test_server_stopped_by_hand_is_started_again(made: Path) -> None:
    async with embedded.run(made) as server:
        os.kill(server.pid, signal.SIGINT)
        await soon(partial(renewed, made, server.pid), "a new postmaster")


async def test_start_succeeds_after_daemon_and_postmaster_died_and_a_backend_did_not(made: Path) -> None:
    with Daemon(made) as daemon:
        answer = daemon.answer()
        await query(answer["dsn"], "create table kept_7 as select 1 as it")
        client = await busy_backend(daemon, answer["dsn"])
        try:
            daemon.process.send_signal(signal.SIGSTOP)  # so that it does not restart the server
            os.kill(int(answer["pid"]), signal.SIGKILL)
            daemon.kill()
            assert daemon.server_pids, "a backend goes on"
            async with embedded.run(made) as server:
                assert await query(server.dsn, "select it from kept_7") == 1
        finally:
            client.kill()
            client.wait()


async def test_process_id_that_another_program_has_now_does_not_prevent_a_start(made: Path) -> None:
    async with embedded.run(made) as server:
        await query(server.dsn, "create table kept_8 as select 1 as it")
        left = (made / "postgres" / "postmaster.pid").read_text()
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        left = left.replace(str(server.pid), str(stranger.pid))
        (made / "postgres" / "postmaster.pid").write_text(left)
        (server.socket_dir / ".s.PGSQL.5432.lock").write_text(left)
        (server.socket_dir / ".s.PGSQL.5432").touch()
        assert embedded.find(made) is None
        async with embedded.run(made) as again:
            assert await query(again.dsn, "select it from kept_8") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("left", [b"", b"\0" * 90, b"\n\n\n", b"0\n", b"-\xff\n7", b"99999999999999999999\n"])
async def test_power_loss_that_damaged_the_pid_file_does_not_stop_the_start(own: Path, left: bytes) -> None:
    async with embedded.run(own) as server:
        await query(server.dsn, "create table kept_10 as select 1 as it")
    (own / "postgres" / "postmaster.pid").write_bytes(left)
    (own / "postgres" / "coordinator.conf").write_bytes(b"")
    (own / "postgres.json").write_bytes(left)
    assert embedded.find(own) is None
    async with embedded.run(own) as again:
        assert await query(again.dsn, "select it from kept_10") == 1


async def test_damaged_pid_file_of_a_server_that_runs_starts_no_second_one(own: Path) -> None:
    with Daemon(own) as daemon:
        assert "error" not in daemon.answer()
        before = set(daemon.server_pids)
        (own / "postgres" / "postmaster.pid").write_bytes(b"")
        daemon.kill()
        async with embedded.run(own) as server:
            assert before.isdisjoint(daemon.server_pids)
            assert await query(server.dsn, "select 1") == 1


async def test_copy_made_of_a_running_server_is_another_server(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    async with embedded.run(made) as original:
        await query(original.dsn, "create table kept_9 as select 'original' as it")
        subprocess.run(["cp", "-a", made, copy], check=True)
        assert embedded.find(copy) is None
        async with embedded.run(copy) as other:
            assert other.owned
            assert other.dsn != original.dsn
            await query(other.dsn, "update kept_9 set it = 'copy'")
            assert await query(original.dsn, "select it from kept_9") == "original"
    assert embedded.find(made) is None


MOMENTS: dict[str, Callable[[Path], object]] = {
    "initdb began": lambda data_dir: list(data_dir.glob("postgres.new-*")),
    "template made": lambda data_dir: list(data_dir.glob("postgres.new-*/base/1/PG_VERSION")),
    "server began": lambda data_dir: (data_dir / "postgres" / "postmaster.pid").exists(),
    "socket bound": lambda data_dir: (data_dir / "postgres" / ".s.PGSQL.5432").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_first_start_killed_at_any_moment_does_not_block_the_next(tmp_path: Path, moment: str) -> None:
    with Daemon(tmp_path) as daemon:
        until(lambda: MOMENTS[moment](tmp_path) or MOMENTS["socket bound"](tmp_path), f"{moment}, or it is over")
        daemon.kill()
        async with embedded.run(tmp_path) as server:
            assert await query(server.dsn, "select 1") == 1
    assert list(tmp_path.glob("postgres.new-*")) == []


async def test_lost_socket_makes_the_server_start_again(made: Path) -> None:
    async with embedded.run(made) as server:
        (server.socket_dir / ".s.PGSQL.5432").unlink()
        await soon(lambda: embedded.find(made) is not None, "found again")
        assert await query_when_up(server.dsn, "select 1") == 1


async def test_lost_cluster_ends_the_block_instead_of_beginning_an_empty_one(own: Path) -> None:
    async def lose_it() -> None:
        async with embedded.run(own) as server:
            os.kill(server.pid, signal.SIGSTOP)
            shutil.move(own / "postgres", own.parent / "elsewhere")
            os.kill(server.pid, signal.SIGKILL)
            with anyio.fail_after(DEADLINE_S):
                await anyio.sleep_forever()

    with pytest.raises(ConfigurationError, match="is gone"):
        await lose_it()
    await soon(lambda: not processes.servers_of(own.parent / "elsewhere"), "its processes ended")
    shutil.move(own.parent / "elsewhere", own / "postgres")
    async with embedded.run(own) as restored:
        assert await query(restored.dsn, "select 1") == 1
