"""A PostgreSQL with TLS on a TCP port of loopback, in a process that ends with the block. Other roles than its own need a password."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import asyncpg
import pytest

from coordinator.embedded import binaries
from coordinator.embedded.account import Account
from tests.ports import reserve_port
from tests.waiting import until

ROLE = "app"


@contextmanager
def tls_server(folder: Path, certificate: Path, key: Path) -> Iterator[int]:
    """Run the first PostgreSQL of this machine that was built with TLS, and return its port."""
    account = Account("namespace" if os.geteuid() == 0 else "self", os.geteuid(), os.getegid())
    for programs in binaries.folders():
        data = Path(tempfile.mkdtemp(dir=folder))

        def command(program: str, *arguments: str, programs: Path = programs, data: Path = data) -> list[str]:
            return account.command(programs / program, "-D", str(data), *arguments, folder=folder)

        options = ("--auth=trust", "--locale=C", "--encoding=UTF8", f"--username={ROLE}", "--no-sync")
        subprocess.run(command("initdb", *options), check=True, capture_output=True)
        asked = subprocess.run(command("postgres", "-C", "ssl_library"), check=True, capture_output=True, text=True)
        if asked.stdout.strip():
            break
    else:
        pytest.skip("no PostgreSQL here was built with TLS (Debian, Ubuntu: apt-get install postgresql)")
    methods = {ROLE: "trust", "all": "scram-sha-256"}
    lines = (f"hostssl all {role} 127.0.0.1/32 {method}\n" for role, method in methods.items())
    (data / "pg_hba.conf").write_text("".join(lines))
    port = reserve_port()
    settings = {
        "ssl": "on",
        "ssl_cert_file": str(certificate),
        "ssl_key_file": str(key),
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",
    }
    given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command("postgres", *given), stdout=log, stderr=log)
    try:
        anyio.run(_listening, process, port, folder / "log")
        yield port
    finally:
        process.terminate()
        process.wait(30)


async def _listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    async def look() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            connection = await asyncpg.connect(f"postgresql://{ROLE}@127.0.0.1:{port}/postgres?sslmode=require")
        except (OSError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    await until(look, "PostgreSQL answers", every_s=0.05)
