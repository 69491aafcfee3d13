"""Fixtures: a real PostgreSQL; `tx` is a transaction that is rolled back, `db` is a copy of a template database."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from coordinator import embedded
from coordinator.config import Config
from coordinator.db import connection as connecting
from coordinator.db import schema
from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.db.database import Database
from coordinator.model.operation import Operation
from tests.server import SETTINGS, disk
from tests.waiting import DEADLINE_S

if TYPE_CHECKING:
    from tests.fake_s3 import FakeS3
    from tests.spans import Spans

R = TypeVar("R")
Open = Callable[[], Awaitable[asyncpg.Connection]]

# A test of one or two minutes each: at the end, the other processes would be idle.
COARSE = timedelta(seconds=20)  # a busy machine takes less for what a test does before it first sets the clock
LONGEST = ("test_conformance.py", "test_new_noun.py")
MAX_WORKERS = 8
GIVEN = {"COORDINATOR_TEST_DATABASE_URL", "COORDINATOR_TEST_IMAGE"}  # either names the server of the suite

FAKE_CLOCK = """
create or replace function coordinator.now_utc() returns timestamptz language sql volatile parallel safe
set search_path = pg_catalog, pg_temp
as $$ select coalesce(nullif(current_setting('coordinator.fake_now', true), '')::timestamptz, clock_timestamp()) $$
"""


# A copy continues the epoch of its template: otherwise, its first step would only begin an epoch.
ADOPT_EPOCH = """
with adopted as (update coordinator.relay set identity = coordinator.relay_identity() returning 1)
select setval('coordinator.epoch_mark', last_value >> 32 << 32 | coordinator.epoch_hash()) from coordinator.epoch_mark, adopted"""


# The product ends a wait for another session after a second. In a test, another session waits while the test runs,
# however long that takes; tests of this limit use `bounded_waits`.
BOUND_S = connecting.LOCK_WAIT_S
connecting.LOCK_WAIT_S = DEADLINE_S
# It also ends a session whose transaction is idle for a minute. In a test, a transaction stays open while the test runs.
connecting.PINNED["idle_in_transaction_session_timeout"] = "1h"
BOUND_WAITS = """
update pg_proc set proconfig = array_replace(proconfig, 'lock_timeout={}s', 'lock_timeout={}s')
where pronamespace = 'coordinator'::regnamespace
"""

# Keeps autovacuum away from the tables, which would come at any moment, with its own snapshot.
UNTENDED = """
do $$
declare
  v_table regclass;
begin
  for v_table in select oid from pg_class where relnamespace = 'coordinator'::regnamespace and relkind = 'r' loop
    execute format('alter table %s set (autovacuum_enabled = off)', v_table);
  end loop;
end
$$
"""


CATALOGUE = (
    *("pg_attribute", "pg_class", "pg_constraint", "pg_depend", "pg_description", "pg_index"),
    *("pg_proc", "pg_rewrite", "pg_type"),
)

# For each of 1,500 grants, the server records in a shared catalogue that a role must not be dropped first. Each copy
# writes these records, and each drop deletes them. Nobody drops these roles.
FORGET_GRANTS = "delete from pg_shdepend where dbid = (select oid from pg_database where datname = current_database())"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long fault and load runs")
    parser.addoption(
        "--about", help="of what is tried with every noun, function or limit, try those with this in the name"
    )


def pytest_configure() -> None:
    """Put the folders of tests on the memory disk: clusters, of a thousand files each, are copied and deleted there."""
    if place := disk(programs=True):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Disable garbage collection during collection: all tests stay in memory, and this saves a fifth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    if about := config.getoption("--about"):
        tried = {item.nodeid.partition("[")[0] for item in items if about in item.nodeid.partition("[")[2]}
        items[:] = [item for item in items if about in item.nodeid or item.nodeid.partition("[")[0] not in tried]
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if "kept" in getattr(item, "fixturenames", ()):  # sessions belong to an event loop
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes `-n auto` starts: two for each processor, since tests wait half of the time.

    Each process has its own server, so they share only the processors. If a server is given, only one process runs.
    """
    given = "COORDINATOR_TEST_DATABASE_URL" in os.environ
    return 0 if given else min(2 * len(os.sched_getaffinity(0)), MAX_WORKERS)


@contextmanager
def local_server(bin_dir: Path | None = None, *, copy_of: Path | None = None) -> Iterator[str]:
    """Run a server on a new data directory, or on a copy of a stopped server's; yield its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.server", bin_dir or "", copy_of or ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        dsn = process.stdout.readline().strip()
        assert dsn, "the test server did not start"
        yield dsn
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data directory of a stopped server, whose database `coordinator` has the schema and was never used: copy it.

    The first process of the suite that needs it makes it, in two seconds; a copy takes a twentieth of that.
    """
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # of all processes
    made, unfinished = place / "prepared", place / "unfinished"

    async def make() -> None:
        async with embedded.run(unfinished, settings=SETTINGS) as server:
            await apply(server.dsn)

    with (place / "prepared.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            asyncio.run(make())
            unfinished.rename(made)
    return made


@pytest.fixture
def data_dir(prepared: Path, tmp_path: Path) -> Path:
    """Data directory of the test's own, for an embedded server: its database has the schema."""
    return copied(prepared, tmp_path / "data")


def copied(folder: Path, target: Path) -> Path:
    """Copy the data directory of a stopped server."""
    subprocess.run(["cp", "-a", folder, target], check=True)
    return target


async def apply(url: str) -> None:
    """Apply the schema, and remove old versions of rows from the catalogue: they are a third of what each copy of a database writes."""
    connection = await connect(url)
    try:
        await schema.apply(connection)
        await connection.execute(f"vacuum full {', '.join(CATALOGUE)}")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of the test server: COORDINATOR_TEST_DATABASE_URL (of a superuser), a container, or an embedded server."""
    if url := os.environ.get("COORDINATOR_TEST_DATABASE_URL"):
        yield url
    elif image := os.environ.get("COORDINATOR_TEST_IMAGE"):
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer(image, driver=None) as container:
            yield container.get_connection_url()
    else:
        with local_server(copy_of=request.getfixturevalue("prepared")) as url:
            yield url


def with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def admin(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
def fake_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    """An object store that this process, and those that it starts, find through their environment."""
    from tests.fake_s3 import FakeS3

    with FakeS3() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake


@pytest.fixture(scope="session")
def pristine(server_url: str, request: pytest.FixtureRequest) -> str:
    """Name of a database with only the schema, which is copied and never used itself."""
    if GIVEN & os.environ.keys():
        return with_schema(server_url)
    name = f"pristine_{uuid4().hex[:8]}"
    rename = f"alter database coordinator rename to {name}"
    asyncio.run(admin(with_database(server_url, "postgres"), rename, "create database coordinator"))
    return name


def with_schema(server_url: str) -> str:
    """Create a database with only the schema, and return its name."""
    name = f"pristine_{uuid4().hex[:8]}"

    async def make() -> None:
        await admin(server_url, f"create database {name}")
        await apply(with_database(server_url, name))

    asyncio.run(make())
    return name


@pytest.fixture(scope="session")
def template(server_url: str, pristine: str) -> str:
    """Name of a database with the schema and the fake clock, which is copied and never used itself."""
    return with_clock(server_url, pristine)


def with_clock(server_url: str, pristine: str) -> str:
    """Create a database with the schema and the fake clock, and return its name."""
    name = f"template_{uuid4().hex[:8]}"
    asyncio.run(admin(server_url, f"create database {name} template {pristine}"))
    patience = BOUND_WAITS.format(f"{BOUND_S:g}", f"{DEADLINE_S:g}")
    asyncio.run(admin(with_database(server_url, name), FAKE_CLOCK, patience, FORGET_GRANTS))
    return name


@asynccontextmanager
async def cloned(server_url: str, template: str | None) -> AsyncIterator[str]:
    """Create a database, from the template or empty; drop it after the block, with its connections."""
    name = f"test_{uuid4().hex[:12]}"
    copy = f" template {template} strategy file_copy" if template else ""  # twice as fast as the default strategy
    connection = await asyncpg.connect(server_url)
    try:
        if connection.get_server_version() >= (18,):
            await connection.execute("set file_copy_method = clone")  # by the kernel, in a tenth less time
        await connection.execute(f"create database {name}{copy}")
        try:
            if template:
                await admin(with_database(server_url, name), ADOPT_EPOCH)
            yield with_database(server_url, name)
        finally:
            await connection.execute(f"drop database {name} with (force)")
    finally:
        await connection.close()


@pytest.fixture
async def database_url(server_url: str, template: str) -> AsyncIterator[str]:
    async with cloned(server_url, template) as url:
        yield url


@pytest.fixture
async def bounded_waits(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """End waits in the test's database when the product's waits end."""
    monkeypatch.setattr(connecting, "LOCK_WAIT_S", BOUND_S)
    await admin(database_url, BOUND_WAITS.format(f"{DEADLINE_S:g}", f"{BOUND_S:g}"))


@pytest.fixture
async def untended(database_url: str) -> None:
    """Disable autovacuum for the tables of the test's database: for tests that depend on statistics or snapshots."""
    await admin(database_url, UNTENDED)


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[Open]:
    """Open sessions on a database of the test's own."""
    async with AsyncExitStack() as stack:

        async def new() -> asyncpg.Connection:
            connection = await connect(database_url)
            stack.push_async_callback(connection.close)
            return connection

        yield new


@pytest.fixture
async def empty_url(server_url: str) -> AsyncIterator[str]:
    """A database without the schema."""
    async with cloned(server_url, None) as url:
        yield url


@pytest.fixture
def seed() -> int:
    """Seed of everything random, printed when the test fails; COORDINATOR_FAULTS_SEED repeats it."""
    chosen = int(os.environ.get("COORDINATOR_FAULTS_SEED") or random.randrange(1_000_000))
    print(f"COORDINATOR_FAULTS_SEED={chosen}")  # noqa: T201
    return chosen


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path is short enough for a socket in it; with many processes, `tmp_path` is too long."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def config() -> Config:
    return Config(min_connections=1, max_connections=5)


@pytest.fixture
async def db(database_url: str, config: Config) -> AsyncIterator[Database]:
    """The database of the test, as an executor."""
    async with Database.open(database_url, config) as database:
        yield database


@pytest.fixture(scope="session")
def shared_url(server_url: str, template: str) -> Iterator[str]:
    name = f"shared_{uuid4().hex[:8]}"
    asyncio.run(admin(server_url, f"create database {name} template {template}"))
    asyncio.run(admin(with_database(server_url, name), ADOPT_EPOCH))
    yield with_database(server_url, name)
    asyncio.run(admin(server_url, f"drop database {name} with (force)"))


class Transaction:
    """An executor in one transaction that is rolled back. Each operation has a savepoint, so errors do not end it."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self._stopped = False

    async def run(self, operation: Operation[R]) -> R:
        async with self.connection.transaction():
            return await call(self.connection, operation)

    async def set_clock(self, after: timedelta) -> None:
        """Stop the clock of the database, at this distance from the start of the transaction.

        What happened before has the time of the real clock unless it was stopped, which seconds cannot be compared with.
        """
        assert self._stopped or not timedelta(0) < after < COARSE, "stop the clock first: set_clock(timedelta(0))"
        self._stopped = True
        await self.connection.execute(
            "select set_config('coordinator.fake_now', (transaction_timestamp() + $1)::text, true)", after
        )

    async def events(self) -> list[asyncpg.Record]:
        """Return the events that this transaction has emitted."""
        return await self.connection.fetch(
            "select * from coordinator.events where xid = pg_current_xact_id() order by id"
        )


class Sessions:
    """One session of each database, which tests use one after another: it has cached the schema and its plans."""

    def __init__(self) -> None:
        self._kept: dict[str, asyncpg.Connection] = {}

    @asynccontextmanager
    async def transaction(self, url: str) -> AsyncIterator[asyncpg.Connection]:
        """Roll back everything that the block does, including its settings."""
        if url not in self._kept or self._kept[url].is_closed():
            self._kept[url] = await connect(url)
        connection = self._kept[url]
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield connection
        finally:
            try:
                if not connection.is_closed():
                    await transaction.rollback()
                    await connection.reset()
            except BaseException:  # no other test may see what is left of this one
                connection.terminate()
                raise

    def close(self) -> None:
        for connection in self._kept.values():
            connection.terminate()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kept() -> AsyncIterator[Sessions]:
    sessions = Sessions()
    yield sessions
    sessions.close()


@pytest_asyncio.fixture(loop_scope="session")
async def tx(kept: Sessions, shared_url: str) -> AsyncIterator[Transaction]:
    async with kept.transaction(shared_url) as connection:
        yield Transaction(connection)


@pytest.fixture
def spans() -> Iterator[Spans]:
    """The spans of this test, from now on."""
    from tests.spans import kept  # imports OpenTelemetry

    with kept() as spans:
        yield spans
