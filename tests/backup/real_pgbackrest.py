"""Recovery to an instant with Debian's pgBackRest, as docs/backup.md describes it: part of ``make operations``."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from datetime import datetime
from pathlib import Path

import anyio
import asyncpg

from coordinator import embedded
from coordinator.db import schema
from tests.backup import distribution
from tests.backup.test_backup import LAST, claimed
from tests.daemon import Daemon, opened
from tests.faults.forks import SETTINGS, check_fork, give, issue
from tests.waiting import until, until_true

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "backup.md").read_text("utf-8")
STANZA = "coordinator"
LOCKED = 50  # another process of pgBackRest works on the stanza


class BackRest:
    """pgBackRest with a repository, a configuration and logs of the test's own."""

    def __init__(self, program: Path, folder: Path, cluster: Path) -> None:
        (text,) = re.findall(r"```ini\n(\[global\].*?)```", DOCS, re.DOTALL)
        places = {"repo1-path": "repository", "spool-path": "spool", "log-path": "log", "lock-path": "lock"}
        folder.mkdir()
        for name, place in places.items():
            (folder / place).mkdir()
            text = re.sub(rf"^{name}=.*\n", "", text, flags=re.MULTILINE)
            text = text.replace("[global]\n", f"[global]\n{name}={folder / place}\n")
        text = re.sub(r"^pg1-path=.*$", f"pg1-path={cluster}\npg1-user=coordinator", text, flags=re.MULTILINE)
        self.config = folder / "pgbackrest.conf"
        self.config.write_text(text, "utf-8")
        self._program = program

    def command(self, *arguments: str) -> list[str]:
        return [str(self._program), f"--config={self.config}", f"--stanza={STANZA}", *arguments]

    def reach(self, server: embedded.Server) -> None:
        """Name the socket of the server."""
        with self.config.open("a", encoding="utf-8") as file:
            file.write(f"pg1-socket-path={server.socket_dir}\n")

    async def run(self, *arguments: str) -> str:
        async def ended() -> subprocess.CompletedProcess[bytes] | None:
            done = await anyio.run_process(self.command(*arguments), check=False)
            return None if done.returncode == LOCKED else done

        done = await until(ended, f"pgbackrest {arguments[0]}: the server archives in between")
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        return done.stdout.decode()


def documented(*options: str) -> list[str]:
    """Return the arguments of the documented command with these options, except for the stanza."""
    lines = [shlex.split(line, comments=True) for line in DOCS.splitlines() if line.startswith("pgbackrest ")]
    (words,) = [words for words in lines if set(options) <= set(words)]
    return words[2:]


async def load(connection: asyncpg.Connection, name: str) -> None:
    await connection.execute(
        "select coordinator.log_append('default', 'note', 'k' || n % 9, '[{\"data\": 1}]'),"
        " coordinator.signal_set('default', $1 || n, '1') from generate_series(1, 500) n",
        name,
    )


async def test_an_instant_is_recovered_and_nothing_is_issued_twice(bin_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "server"
    rest = BackRest(distribution.pgbackrest(), tmp_path / "pgbackrest", data / "postgres")
    archiving = {"archive_mode": "on", "archive_command": " ".join(rest.command("archive-push %p"))}
    settings = {**SETTINGS, **archiving}
    async with embedded.run(data, bin_dir=bin_dir, settings=settings) as server:
        rest.reach(server)
        give(tmp_path / "pgbackrest", data / "postgres")
        async with opened(server.dsn) as connection:
            await schema.apply(connection)
            with Daemon(server.dsn) as daemon:
                await daemon.ready()
                await rest.run("stanza-create")
                await rest.run("check")
                await load(connection, "before")
                await rest.run(*documented("--type=full"))
                await connection.execute("select coordinator.backup_record('full', p_tool => 'pgbackrest')")
                await load(connection, "after")
                await daemon.lead()
                (stanza,) = json.loads(await rest.run("info", "--output=json"))
                stopped = stanza["backup"][0]["timestamp"]["stop"]  # a backup serves instants of later seconds
                await until_true(connection, "select extract(epoch from clock_timestamp()) >= $1::bigint + 1", stopped)
            shared, fence = await issue(connection, "shared"), await claimed(connection)
            instant: datetime = await connection.fetchval("select clock_timestamp()")
            lost, lost_fence = await issue(connection, "lost", times=3), await claimed(connection)
            assert lost_fence > fence
            await load(connection, "lost")
            await connection.execute("drop table coordinator.signals cascade")
            last = await connection.fetchval("select pg_walfile_name(pg_switch_wal())")
            await until_true(connection, "select last_archived_wal >= $1 from pg_stat_archiver", last)
    target = f"--target={instant.isoformat(' ')}"
    words = documented("--delta", "--target-action=promote")
    await rest.run(*(target if word.startswith("--target=") else word for word in words))
    give(data / "postgres", tmp_path / "pgbackrest")
    async with embedded.run(data, bin_dir=bin_dir, settings=settings) as server, opened(server.dsn) as connection:
        await until_true(connection, "select not pg_is_in_recovery()")
        assert await connection.fetchval("select count(*) from coordinator.signals where key like 'after%'") == 500
        assert await connection.fetchval("select count(*) from coordinator.signals where key like 'lost%'") == 0
        found = await connection.fetchrow(LAST)
        assert found is not None
        assert (found["backup"], found["tool"]) == ("full", "pgbackrest")
        await check_fork(connection, shared, lost)
        assert await claimed(connection) > lost_fence
        with Daemon(server.dsn) as daemon:
            await (await daemon.ready()).lead()
