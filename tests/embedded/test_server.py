"""The embedded PostgreSQL: what a start provides, and what the next start finds."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from coordinator import embedded
from coordinator.embedded import cluster
from coordinator.errors import ConfigurationError, DatabaseUnavailable
from tests.embedded.process import QUICK, Daemon, query, soon


async def test_first_start_makes_a_server_for_its_user_alone(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    async with embedded.run(data_dir, settings=QUICK) as server:
        assert server.owned
        assert server.data_dir == data_dir
        assert await query(server.dsn, "show server_version") == server.version
        assert await query(server.dsn, "show listen_addresses") == ""
        assert await query(server.dsn, "show data_checksums") == "on"
        assert await query(server.dsn, "select current_user || ' ' || current_database()") == "coordinator coordinator"
        assert await query(server.dsn, "select usesuper from pg_user where usename = current_user")
        assert await query(server.dsn, "show server_encoding") == "UTF8"
        assert await query(server.dsn, "select datcollate from pg_database limit 1") == "C"
        for folder in (data_dir, server.data_dir / "postgres", server.socket_dir):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


async def test_fsync_is_on_by_default(made: Path) -> None:
    async with embedded.run(made) as server:
        assert await query(server.dsn, "show fsync") == "on"
        assert await query(server.dsn, "show max_connections") == "200"


async def test_command_line_for_a_person_works_as_it_stands(made: Path) -> None:
    async with embedded.run(made, settings=QUICK) as server:
        command = [*shlex.split(server.psql), "--no-psqlrc", "-Atc", "select 6 * 7"]
        done = await anyio.run_process(command, env={"PATH": os.defpath})
        by_dsn = await anyio.run_process([str(server.bin_dir / "psql"), server.dsn, "-XAtc", "select 42"])
    assert done.stdout == by_dsn.stdout == b"42\n"


async def test_restart_keeps_data_and_address(made: Path) -> None:
    async with embedded.run(made) as first:
        await query(first.dsn, "create table kept_1 as select 'word' as it")
    assert not (made / "postgres" / "postmaster.pid").exists()
    async with embedded.run(made) as second:
        assert second.dsn == first.dsn
        assert await query(second.dsn, "select it from kept_1") == "word"


async def test_find_sees_a_server_only_while_it_runs(made: Path) -> None:
    assert embedded.find(made / "nowhere") is None
    async with embedded.run(made, settings=QUICK) as server:
        found = embedded.find(made)
        assert found is not None
        assert (found.dsn, found.version, found.pid, found.owned) == (
            server.dsn,
            server.version,
            server.pid,
            False,
        )
        stale = (made / "postgres" / "postmaster.pid").read_text()
    assert embedded.find(made) is None
    (made / "postgres" / "postmaster.pid").write_text(stale)
    assert embedded.find(made) is None


def test_find_imports_nothing_heavy() -> None:
    program = (
        "import sys; from pathlib import Path; from coordinator import embedded;"
        "embedded.find(Path('/nowhere')); heavy = ('anyio', 'asyncio', 'asyncpg', 'structlog', 'subprocess');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


async def test_settings_win_over_the_operators_file_which_wins_over_ours(own: Path) -> None:
    async with embedded.run(own, settings=QUICK):
        pass
    with (own / "postgres" / "postgresql.conf").open("a") as file:
        file.write("work_mem = 7MB\nmax_connections = 31\n")
    async with embedded.run(own, settings=QUICK | {"work_mem": "9MB"}) as server:
        assert await query(server.dsn, "show work_mem") == "9MB"
        assert await query(server.dsn, "show max_connections") == "31"


async def test_failed_start_shows_the_tail_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        async with embedded.run(tmp_path, settings={"no_such_setting": "1"}):
            pass
    assert "no_such_setting" in caught.value.message
    assert "no_such_setting" in (caught.value.detail or "")
    assert caught.value.hint
    async with embedded.run(tmp_path, settings=QUICK) as server:
        assert await query(server.dsn, "select 1") == 1


async def test_failed_start_gives_its_own_reason_and_not_that_of_an_earlier_life(own: Path) -> None:
    newest = max((own / "postgres" / "log").glob("postgresql-*.log"))
    with newest.open("a") as log:
        log.write("2026-01-01 00:00:00.000 UTC [7] FATAL:  an old reason: could not access a file\n")
    with pytest.raises(ConfigurationError) as caught:
        async with embedded.run(own, settings={"no_such_setting": "1"}):
            pass
    assert "no_such_setting" in caught.value.message
    assert "an old reason" not in caught.value.message + (caught.value.detail or "")


async def test_start_that_fails_without_a_word_says_how_it_ended(own: Path, tmp_path: Path) -> None:
    version = (own / "postgres" / "PG_VERSION").read_text().strip()
    for name in ("postgres", "initdb"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{name} (PostgreSQL) {version}.0" || exit 3\n')
        program.chmod(0o755)
    with pytest.raises(DatabaseUnavailable, match="ended with code 3 and wrote nothing"):
        async with embedded.run(own, bin_dir=tmp_path):
            pass


def test_failure_names_the_versions_that_do_not_fit(tmp_path: Path) -> None:
    log = (
        "2026-01-01 00:00:00.000 UTC [7] FATAL:  database files are incompatible with server\n"
        "2026-01-01 00:00:00.000 UTC [7] DETAIL:  The data directory was initialized by PostgreSQL version 15, "
        "which is not compatible with this version 18.6.\n"
    )
    assert cluster.failure("PostgreSQL did not start", tmp_path, log).message == (
        "PostgreSQL did not start: database files are incompatible with server; The data directory was initialized by "
        "PostgreSQL version 15, which is not compatible with this version 18.6"
    )


async def test_damaged_version_of_a_cluster_is_named(own: Path) -> None:
    (own / "postgres" / "PG_VERSION").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="PG_VERSION is damaged"):
        async with embedded.run(own):
            pass


async def test_log_goes_to_rotated_files_of_limited_number(made: Path) -> None:
    log_dir = made / "postgres" / "log"
    async with embedded.run(made, settings=QUICK) as server:
        await query(server.dsn, "do $$ begin raise log 'a line to keep'; end $$")
        await soon(lambda: "a line to keep" in "".join(f.read_text() for f in log_dir.glob("*.log")), "logged")
    for day in range(10, 30):
        (log_dir / f"postgresql-202001{day}-000000.log").touch()
    async with embedded.run(made, settings=QUICK):
        assert len(list(log_dir.glob("postgresql-*.log"))) <= 9  # eight old ones and the present


async def test_error_of_the_block_is_raised_unchanged(made: Path) -> None:
    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with embedded.run(made, settings=QUICK):
            raise mine
    assert caught.value is mine
    assert embedded.find(made) is None


async def test_cancelling_a_start_leaves_nothing_running(tmp_path: Path) -> None:
    with Daemon(tmp_path) as bystander:  # only to see and end what might be left
        bystander.kill()
        for patience_s in (0.05, 0.3, 0.6):
            with anyio.move_on_after(patience_s):
                async with embedded.run(tmp_path):
                    await anyio.sleep_forever()
            assert bystander.server_pids == []
            assert list(tmp_path.glob("postgres.new-*")) == []
