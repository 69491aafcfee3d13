"""Secrets and certificates are replaced while a daemon and its clients run: nothing restarts, and nothing fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from coordinator.client.http import HttpExecutor
from coordinator.client.http_pool import HttpPool
from coordinator.config import load
from coordinator.db.database import Database
from coordinator.model.token import Role, new_secret
from coordinator.operations import signals, tokens
from tests.certificate import make_pair
from tests.daemon import Daemon
from tests.db.tls_server import ROLE, tls_server
from tests.waiting import DEADLINE_S, until

pytestmark = pytest.mark.slow


def replace(path: Path, content: bytes) -> None:
    """Replace a file as deployments do: in one step, and readable for its owner only."""
    new = path.with_name(f"{path.name}.new")
    new.touch(0o600)
    new.write_bytes(content)
    new.rename(path)


class Server(NamedTuple):
    """A server whose role `service` needs a password, and the pair that it uses, which is its own authority."""

    folder: Path
    port: int
    pair: tuple[Path, Path]

    def url(self, user: str, **parameters: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://{user}@127.0.0.1:{self.port}/postgres?{query}"

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.url(ROLE, sslmode="require"))
        try:
            yield connection
        finally:
            await connection.close()

    async def run(self, *statements: str) -> None:
        async with self.connected() as connection:
            for statement in statements:
                await connection.execute(statement)


async def backends(watcher: asyncpg.Connection) -> set[int]:
    """Return the processes that serve the daemon."""
    query = "select pid from pg_stat_activity where usename like 'service%' and backend_type = 'client backend'"
    return {row["pid"] for row in await watcher.fetch(query)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("rotation")
    pair = make_pair(folder, "server")
    with tls_server(folder, *pair) as port:
        yield Server(folder, port, pair)


async def all_connections_again(server: Server, daemon: Daemon, rotate: Callable[[], Awaitable[None]]) -> None:
    """Rotate, end every connection of the daemon, and wait until it works on new ones."""
    await daemon.ready()
    await rotate()
    async with server.connected() as watcher:
        before = await backends(watcher)
        assert before
        await watcher.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename like 'service%'")

        async def works_again() -> bool:
            now = await backends(watcher)
            return not now & before and len(now) >= 3 and await daemon.is_ready()

        await until(works_again, "the daemon works on new connections", every_s=0.05)
    assert (await daemon.get("/v1/signals")).status_code == 200


async def test_password_role_and_certificate_of_the_database_are_replaced_under_a_running_daemon(
    server: Server, tmp_path: Path
) -> None:
    await server.run("create role service_a superuser login password 'one'")
    address, authority = tmp_path / "url", tmp_path / "root.pem"
    shutil.copy(server.pair[0], authority)
    second = make_pair(tmp_path, "second")

    def write(user: str) -> None:
        replace(address, server.url(user, sslmode="verify-full", sslrootcert=authority).encode())

    async def password() -> None:
        await server.run("alter role service_a password 'two'")
        write("service_a:two")

    async def role() -> None:
        """Two roles take turns: at no moment is the password in the file wrong."""
        await server.run("create role service_b superuser login password 'three'")
        write("service_b:three")
        await server.run("alter role service_a nologin")

    async def certificate() -> None:
        replace(authority, second[0].read_bytes())
        for path, new in zip(server.pair, second, strict=True):
            path.write_bytes(new.read_bytes())
        await server.run("select pg_reload_conf()")

    write("service_a:one")
    with Daemon(None, variables={"COORDINATOR_DATABASE_URL_FILE": str(address)}) as daemon:
        for rotate in (password, role, certificate):
            await all_connections_again(server, daemon, rotate)
        assert len(daemon.lines("secret.reloaded")) == 2
        assert ":two" not in daemon.output()


async def test_a_password_is_replaced_in_the_passfile_of_libpq(server: Server, tmp_path: Path) -> None:
    await server.run("create role service_p superuser login password 'one'")
    passfile = tmp_path / "pgpass"
    replace(passfile, b"127.0.0.1:*:*:service_p:one\n")

    async def rotate() -> None:
        await server.run("alter role service_p password 'two'")
        replace(passfile, b"127.0.0.1:*:*:service_p:two\n")

    with Daemon(server.url("service_p", sslmode="require", passfile=passfile)) as daemon:
        await all_connections_again(server, daemon, rotate)


async def test_a_password_that_only_the_database_knows_is_reported_until_the_daemon_has_it_too(
    server: Server, tmp_path: Path
) -> None:
    """The direct connections outlive their age, since nothing can replace them: only calls suffer."""
    await server.run("create role service_r superuser login password 'one'")
    passfile = tmp_path / "pgpass"
    replace(passfile, b"127.0.0.1:*:*:service_r:one\n")
    with Daemon(server.url("service_r", sslmode="require", passfile=passfile), max_connection_age_s=1) as daemon:
        await daemon.ready()
        await server.run("alter role service_r password 'two'")

        async def reason() -> str:
            return str((await daemon.get("/readyz")).json()["reason"] or "")

        async def reported() -> bool:
            return (await reason()).startswith("no connection for calls: password authentication failed")

        await until(reported, "/readyz says that the password is wrong", every_s=0.05)
        assert (await daemon.get("/v1/signals")).status_code == 503
        assert (await daemon.get("/livez")).status_code == 200
        replace(passfile, b"127.0.0.1:*:*:service_r:two\n")
        await daemon.ready()
        assert (await daemon.get("/v1/signals")).status_code == 200


async def test_the_certificate_of_a_daemon_and_its_authority_are_replaced(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_pair(tmp_path, "first"), make_pair(tmp_path, "second")
    used = tmp_path / "tls.crt", tmp_path / "tls.key"
    trusted = tmp_path / "authority.pem"
    for path, content in zip((*used, trusted), (*first, first[0]), strict=True):
        replace(path, content.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    settings = {"tls_certificate": used[0], "tls_key": used[1]}
    with Daemon(database_url, constants={"coordinator.api.tls.LOOK_S": 0.05}, **settings) as daemon:
        started = await daemon.logged("daemon.started")
        async with HttpPool.open(started["http"], {}) as pool:

            async def asked() -> int:
                return (await pool.send("GET", "/livez", None, {}, DEADLINE_S, fresh=True)).status

            assert await asked() == 200
            replace(trusted, second[0].read_bytes())
            for path, content in zip(used, second, strict=True):
                replace(path, content.read_bytes())
            await daemon.logged("tls.reloaded")
            assert await asked() == 200, "the client has read its authorities again"


async def test_a_token_is_replaced_while_its_holder_calls_and_listens(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    secrets = [new_secret(), new_secret()]
    made = [
        await db.run(tokens.Create(name=f"t{n}", role=Role.agent.name, hash=one.hash, prefix=one.prefix))
        for n, one in enumerate(secrets)
    ]
    held = tmp_path / "token"
    replace(held, secrets[0].text.encode())
    with Daemon(database_url, access="tokens") as daemon:
        await daemon.ready()
        config = load(environment={**os.environ, "COORDINATOR_TOKEN_FILE": str(held)})
        async with HttpExecutor.open(daemon.url, config) as executor, executor.wake(project="default"):
            await executor.run(signals.Set(project="default", key="k", value=1))
            replace(held, secrets[1].text.encode())
            await db.run(tokens.Revoke(token=made[0].id))
            await executor.run(signals.Set(project="default", key="k", value=2))
            await daemon.logged("token.ended")  # the stream that the first token had opened

            async def listens_again() -> bool:
                seen = await daemon.metrics()
                closed = sum(
                    value for name, value in seen.items() if name.startswith("coordinator_stream_closed_total")
                )
                return closed >= 1 and seen["coordinator_stream_connections"] == 1

            await until(listens_again, "the stream is open again, with the second token")
