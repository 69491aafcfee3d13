from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import asyncpg
import pytest

import coordinator
from coordinator.client import Client, lock_keeper, lock_wait
from coordinator.db.database import Database
from coordinator.relay import Relay
from tests.conftest import admin, with_database
from tests.daemon import Daemon
from tests.sidecar.conftest import sidecar
from tests.waiting import DEADLINE_S

# Nothing reads the log without a hint.
HINTED = {"coordinator.operations.log_reader.POLL_S": 3600.0, "coordinator.sidecar.upstream.POLL_S": 3600.0}


@asynccontextmanager
async def relayed(db: Database) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Relay(db).run_forever)
        yield
        tasks.cancel_scope.cancel()


@pytest.fixture
async def root(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A bare connection to the test's own database, which reaps agents even in the server's first 10 seconds."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "create or replace function coordinator.server_settled() returns boolean "
        "language sql stable parallel safe return true"
    )
    yield connection
    await connection.close()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let who was cancelled leave the queue and release, however long it takes: after a few seconds, the product leaves it to the TTL."""
    monkeypatch.setattr(lock_wait, "WITHDRAW_S", DEADLINE_S)
    monkeypatch.setattr(lock_keeper, "RELEASE_S", DEADLINE_S)


@pytest.fixture
async def unresolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that knows no name, and says so at once: on a machine without a network, the real one may take its time."""

    async def unknown(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)


@contextmanager
def daemon_on(server_url: str, template: str) -> Iterator[tuple[Daemon, str]]:
    """A daemon and its database."""
    name = f"behaviour_{uuid4().hex[:8]}"
    asyncio.run(admin(server_url, f"create database {name} template {template}"))
    with Daemon(with_database(server_url, name), constants=HINTED) as process:
        asyncio.run(process.ready())
        yield process, with_database(server_url, name)
    asyncio.run(admin(server_url, f"drop database {name} with (force)"))


@pytest.fixture(scope="module")
def daemon(server_url: str, template: str) -> Iterator[tuple[Daemon, str]]:
    """A daemon and its database, for this file only."""
    with daemon_on(server_url, template) as running:
        yield running


@pytest.fixture(scope="module")
def beside(daemon: tuple[Daemon, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A sidecar on the database, by its socket."""
    path = tmp_path_factory.mktemp("s") / "s"
    with sidecar(daemon[1], "--agent", "beside", "--socket", str(path), constants=HINTED) as running:
        asyncio.run(running.started())
        yield f"unix://{path}"


@pytest.fixture(scope="module")
def through(daemon: tuple[Daemon, str]) -> Iterator[str]:
    """A sidecar that is connected to the daemon."""
    with sidecar(daemon[0].url, "--agent", "through", constants=HINTED) as running:
        asyncio.run(running.started())
        yield running.url


SIDECARS = [pytest.param(where, marks=pytest.mark.slow) for where in ("sidecar", "upstream")]


@pytest.fixture(params=["postgresql", "http", *SIDECARS])
def url(request: pytest.FixtureRequest, daemon: tuple[Daemon, str]) -> str:
    match request.param:
        case "postgresql":
            return daemon[1]
        case "http":
            return daemon[0].url
        case "sidecar":
            return str(request.getfixturevalue("beside"))
    return str(request.getfixturevalue("through"))


@pytest.fixture(scope="module")
def projects(daemon: tuple[Daemon, str]) -> Iterator[str]:
    """Projects that no test has used, created together."""
    run = uuid4().hex[:8]
    create = f"select coordinator.project_create(format('p{run}%s', n)) from generate_series(1, 300) n"
    asyncio.run(admin(daemon[1], create))
    return (f"p{run}{number}" for number in range(1, 301))


@pytest.fixture
def project(projects: Iterator[str]) -> str:
    return next(projects)


@pytest.fixture
def connect(url: str, project: str) -> Any:
    def make(agent: str | None = None, **options: Any) -> AbstractAsyncContextManager[Client]:
        return coordinator.connect(url, project=project, agent=agent, **options)

    return make


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    pair = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-out", pair[0], "-keyout", pair[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return pair
