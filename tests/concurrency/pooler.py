"""PgBouncer before a database, in a folder of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from coordinator.embedded.account import Account
from tests.waiting import until

__all__ = ["CACHE_SIZE", "POOL", "pooled"]

CACHE_SIZE = 0  # PgBouncer before 1.21 does not know prepared statements
PORT = 6432  # names the socket file; nothing listens on TCP
DOCUMENT = Path(__file__).parents[2] / "docs" / "pgbouncer.md"
CONNECT_QUERY = re.compile(r"connect_query='([^`]*)'")
POOL = 4  # fewer than there are clients: connections do change hands

CONFIGURATION = """
[databases]
{database} = host={host} port={port} dbname={database} user={user} {documented}
[pgbouncer]
pool_mode = {mode}
auth_type = any
listen_addr =
listen_port = {own_port}
unix_socket_dir = {folder}
default_pool_size = {pool}
server_login_retry = 0.1
"""


@asynccontextmanager
async def pooled(url: str, folder: Path, mode: str = "transaction") -> AsyncIterator[str]:
    """Run PgBouncer before the database of ``url``, in this mode; its address for the same database."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed (Debian, Ubuntu: apt-get install pgbouncer)")
    parts, query = urlsplit(url), parse_qs(urlsplit(url).query)
    if parts.password:
        pytest.skip("the test's PgBouncer keeps no passwords: run on the suite's own server")
    folder.mkdir()
    (folder / "pgbouncer.ini").write_text(
        CONFIGURATION.format(
            database=parts.path[1:],
            host=(query.get("host") or [parts.hostname])[0],
            port=(query.get("port") or [parts.port or 5432])[0],
            user=parts.username,
            own_port=PORT,
            folder=folder,
            mode=mode,
            pool=POOL,
            documented=CONNECT_QUERY.search(DOCUMENT.read_text())[0],  # type: ignore[index]
        )
    )
    # As root it refuses to run: the way that the embedded server goes.
    account = Account("namespace" if os.geteuid() == 0 else "self", os.geteuid(), os.getegid())
    process = subprocess.Popen(
        account.command(Path(program), "-q", str(folder / "pgbouncer.ini"), folder=folder), stderr=subprocess.PIPE
    )

    async def listening() -> bool:
        if process.poll() is not None:
            assert process.stderr
            raise AssertionError(f"pgbouncer ended: {process.stderr.read().decode()}")
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(folder / f".s.PGSQL.{PORT}")) == 0

    try:
        await until(listening, "pgbouncer listens")
        own = f"postgresql://{parts.username}@{parts.path}?host={folder}&port={PORT}"
        connection = await asyncpg.connect(own, statement_cache_size=0)
        assert await connection.fetchval("select current_database()") == parts.path[1:]
        await connection.close()
        yield own
    finally:
        process.terminate()
        process.wait()
        if process.stderr:
            process.stderr.close()
