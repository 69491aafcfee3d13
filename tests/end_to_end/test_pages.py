"""Every command block of the README and of `docs/` runs unchanged, against a real daemon, page by page."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import anyio
import asyncpg
import pytest

from coordinator.embedded import binaries
from tests.conftest import cloned
from tests.daemon import Daemon
from tests.end_to_end.blocks import ROOT, Block, blocks, pages
from tests.forked import forking
from tests.ports import reserve_port
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.slow

PAGES = pages()
LONG = ("docs/jobs.md", "docs/state.md")  # 130 commands: `make operations` runs them, see real_pages.py
OUTSIDE = ("claude", "docker", "helm", "kubectl", "make", "npm", "pip", "systemctl")
EXCEPTED: dict[str, list[tuple[str, str]]] = {
    "README.md": [
        ("make run", "starts a daemon in the foreground, and runs this suite"),
        ("pip wheel . --no-deps --wheel-dir dist", "needs a package index"),
        ("coordinator event tail --follow --topic 'directive.*' --after CURSOR", "follows until it is interrupted"),
        ("coordinator worker run examples.tasks:worker", "works until it is interrupted"),
    ],
    "docs/access.md": [("select coordinator.event_configure('pointer');", "changes the events of the whole database")],
    "docs/agent-bridge.md": [
        (
            "export RECAC_DB_TYPE=postgres RECAC_DB_URL=postgresql://agent@db/coordinator RECAC_PROJECT_ID=TICKET-1",
            "needs a database of recac",
        )
    ],
    "docs/agents.md": [
        ("pipx install 'coordinatord[embedded] @ git+https://HOST/PATH.git'", "needs a package index"),
        ("coordinator agent run -- claude", "needs Claude Code"),
        ("coordinator hook install codex --agents-md", "needs Codex and Claude Code"),
        (
            "coordinator hook install claude-code --url https://coordinator.agents:7420",
            "needs a daemon on another machine",
        ),
    ],
    "docs/backup.md": [
        (
            "coordinator backup create --dir /backups --keep 30d",
            "writes to /backups; tests of backups run these commands",
        ),
        ("pgbackrest --stanza=coordinator stanza-create", "needs pgBackRest"),
        ("set -e", "needs pgBackRest"),
        (
            "pgbackrest --stanza=coordinator --delta --type=time --target='2026-11-26 14:32:00+00' --target-action=promote restore",
            "needs pgBackRest",
        ),
        ("pg_createcluster 18 look --port=5433", "needs pgBackRest"),
    ],
    "docs/containers.md": [
        ("docker build -t coordinator:0.1.0 .", "needs a container engine"),
        ("docker build --build-arg EXTRAS=embedded -t coordinator:0.1.0-embedded .", "needs a container engine"),
        ("kubectl apply -k deploy/k8s/overlays/dev", "needs a cluster"),
    ],
    "docs/doctor.md": [("coordinator doctor", "its exit code says what it finds on a server")],
    "docs/failover.md": [
        (
            "export COORDINATOR_DATABASE_URL='postgresql://app@db-1,db-2,db-3/agents?target_session_attrs=read-write'",
            "needs a cluster of three servers",
        )
    ],
    "docs/jobs.md": [("begin;", "shows where your own write belongs")],
    "docs/mcp.md": [
        (
            'claude mcp add --transport http coordinator "https://coordinator.example:7420/mcp?project=shop" --header "Authorization: Bearer $COORDINATOR_TOKEN"',
            "needs Claude Code",
        )
    ],
    "docs/replica.md": [("export COORDINATOR_DATABASE_URL=postgresql://app@db-1.example/agents", "needs a standby")],
    "docs/state.md": [("pip install 'coordinatord[s3]'", "needs a package index and an object store")],
    "docs/top.md": [('pip install "coordinatord[top]"', "needs a package index and a terminal")],
    "docs/tracing.md": [
        ('pip install "coordinatord[otel]"', "needs a package index and a collector"),
        ("alter role coordinator set session_preload_libraries = 'auto_explain';", "changes a role of the server"),
    ],
    "docs/transactions.md": [
        ("select * from coordinator.transaction_run('default',", "the fencing token is an example"),
        (
            'coordinator transaction run \'{"conditions": [{"verb": "assert_fence", "resource": "name:deploy", "token": 42}],',
            "the fencing token and the versions are examples",
        ),
    ],
    "docs/tutorials/operate.md": [
        ("create role service login password '…';", "creates a role of the whole server"),
        ("coordinator schema grant service", "needs the role"),
        ("install -m 600 /dev/stdin /run/secrets/database-url <<'END'", "starts a daemon on a real host"),
    ],
    "docs/webhooks.md": [
        (
            "coordinator webhook add https://example.com/hook --topic lock.broken --topic 'job.*'",
            "needs a receiver on the internet",
        )
    ],
}


class Place(NamedTuple):
    """The database of all pages, and the port of its daemon."""

    database_url: str
    port: int


@pytest.fixture(scope="module")
def place(server_url: str, pristine: str) -> Iterator[Place]:
    with asyncio.Runner() as runner:
        database = cloned(server_url, pristine)
        url = runner.run(database.__aenter__())
        try:
            with Daemon(url) as daemon:
                runner.run(daemon.lead())
                runner.run(daemon.ready())
                yield Place(url, int(daemon.url.rpartition(":")[2]))
        finally:
            runner.run(database.__aexit__(None, None, None))


def program(folder: Path) -> None:
    """Put the programs into a folder: forked ones, but a sidecar as a process that ends with the page."""
    for name, module in (("coordinator", "coordinator"), ("agent-bridge", "coordinator.bridge")):
        forked, own = shlex.join(forking(module)), shlex.join([sys.executable, "-m", module])
        path = folder / name
        path.write_text(f'#!/bin/sh\ncase "$1" in sidecar) exec {own} "$@";; *) exec {forked} "$@";; esac\n')
        path.chmod(0o755)
    for name in OUTSIDE:  # what would change this machine, or ask another one
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "mark this block: no test runs {name}" >&2\nexit 97\n')
        path.chmod(0o755)


def to_run(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.excepted is None and block.elsewhere is None]


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page) and page not in LONG])
async def test_the_blocks_of_a_page_run(page: str, place: Place, tmp_path: Path) -> None:
    await check(page, place, tmp_path)


async def check(page: str, place: Place, tmp_path: Path) -> None:
    """Run the blocks of a page."""
    programs, folder = tmp_path / "bin", tmp_path / "work"
    programs.mkdir()
    folder.mkdir()
    program(programs)
    psql = next(path / "psql" for path in binaries.folders() if (path / "psql").exists())
    todo = to_run(page)
    shell = [f"{block.first}\n{block.code}" for block in todo if block.language == "sh"]
    script = "\n".join(shell)
    sidecar = reserve_port()
    for written, used in (("7420", place.port), ("7421", sidecar)):
        script = re.sub(rf"\b(localhost|127\.0\.0\.1):{written}\b", rf"\1:{used}", script)
    environment = {
        "PATH": f"{programs}:{psql.parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "COORDINATOR_DATABASE_URL": place.database_url,
        "COORDINATOR_LISTEN": f"127.0.0.1:{sidecar}",
        "COORDINATOR_CONFIG": str(folder / "coordinator.yaml"),
    }
    (folder / "coordinator.yaml").touch()
    (folder / ".curlrc").write_text("fail-with-body\n")
    try:
        if script:
            await run(["bash", "-euxo", "pipefail", "-c", script], folder, environment)
        sql = "".join(f"{block.first}\n{block.code}" for block in todo if block.language == "sql")
        if sql:
            (folder / "page.sql").write_text(sql)
            await run(
                [str(psql), place.database_url, "-X", "-v", "ON_ERROR_STOP=1", "-f", "page.sql"], folder, environment
            )
    finally:
        connection = await asyncpg.connect(place.database_url)
        try:
            await connection.execute("select coordinator.agent_deregister(id) from coordinator.agents_live")
        finally:
            await connection.close()


async def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run a command, which must succeed, and end whatever it has left behind."""
    with (folder.parent / "output").open("w+b") as output:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            with anyio.move_on_after(DEADLINE_S * 2):
                await process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        assert process.returncode == 0, output.read().decode()[-6000:]


def test_what_is_not_executed_is_listed_here() -> None:
    found = {
        page: [(block.name, block.excepted) for block in blocks(page) if block.excepted is not None] for page in PAGES
    }
    assert {page: listed for page, listed in found.items() if listed} == EXCEPTED
