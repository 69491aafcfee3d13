"""Waits for other transactions end soon, with an error that names the blocking session."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from uuid import uuid4

import anyio
import asyncpg
import pytest

from coordinator import operations
from coordinator.config import Config
from coordinator.db import lookout, schema
from coordinator.db.call import statement
from coordinator.db.connection import mapped_errors
from coordinator.db.database import Database
from coordinator.errors import (
    CoordinatorError,
    DatabaseBusy,
    DatabaseUnavailable,
    InvalidArgument,
    NotFound,
    Unauthenticated,
)
from coordinator.operations import agents, directives, idempotency, locks, projects, rules, signals
from tests.concurrency.pooler import CACHE_SIZE, pooled
from tests.conftest import admin
from tests.daemon import opened
from tests.waiting import until

SET = signals.Set(project="default", key="hot", value=1)
ALL_KEYS = """
select pg_advisory_xact_lock(key) from (
  select hashtextextended('', p.id) from coordinator.projects p
  union all select hashtextextended('/hot', p.id) from coordinator.projects p
  union all select hashtextextended('coordinator.lock_queue:' || p.id, 0) from coordinator.projects p
  union all select hashtextextended('coordinator.directive:' || p.id || ':hot', 0) from coordinator.projects p
  union all select hashtextextended('coordinator.rule:' || p.id || ':', 0) from coordinator.projects p) keys (key)
"""
LATER = """
create or replace function coordinator.now_utc() returns timestamptz language sql volatile parallel safe
return clock_timestamp() + interval '1 day';
create or replace function coordinator.server_settled() returns boolean language sql stable return true
"""


pytestmark = pytest.mark.usefixtures("bounded_waits")


@pytest.fixture(autouse=True)
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "LOOK_S", 0.05)


@asynccontextmanager
async def holding(url: str, query: str) -> AsyncIterator[asyncpg.Connection]:
    """Run a query in a transaction that stays open."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(query)
            yield connection
    finally:
        await connection.close()


@pytest.fixture
async def stranger_url(server_url: str, database_url: str) -> AsyncIterator[str]:
    """The database's address for a role that may connect, and nothing else; its name has to be quoted everywhere."""
    role = f'a "stranger\\" {uuid4().hex[:8]}'
    quoted = '"' + role.replace('"', '""') + '"'
    await admin(server_url, f"create role {quoted} login")
    parts = urlsplit(database_url)
    yield urlunsplit(parts._replace(netloc=f"{quote(role)}@{parts.netloc.rpartition('@')[2]}"))
    await admin(server_url, f"drop role {quoted}")


def check(error: DatabaseBusy, holder: asyncpg.Connection, url: str) -> None:
    assert (error.code, error.http_status) == ("55P03", 503)
    assert error.detail
    assert json.loads(error.detail) == {"pid": holder.get_server_pid(), "role": unquote(urlsplit(url).username or "")}
    assert error.hint
    assert f"Session {holder.get_server_pid()} of role" in error.hint


async def refused(run: Callable[[], Awaitable[object]], holder: asyncpg.Connection, url: str) -> None:
    """Run until the error names a session: on a busy machine, a call may have ended before anybody looked at what it waits for."""

    async def named() -> DatabaseBusy | None:
        with pytest.raises(DatabaseBusy) as raised:
            await run()
        return raised.value if raised.value.detail else None

    check(await until(named, "the error names a session"), holder, url)


async def test_a_call_that_waits_for_a_row_names_the_session_that_holds_it(db: Database, database_url: str) -> None:
    await db.run(SET)
    async with holding(database_url, "select coordinator.signal_set('default', 'hot', '2')") as holder:

        async def within() -> None:
            async with db.transaction() as transaction:
                await transaction.run(SET)

        await refused(lambda: db.run(SET), holder, database_url)
        await refused(within, holder, database_url)
    await db.run(SET)


async def test_a_call_that_the_server_ends_says_why(database_url: str) -> None:
    async with opened(database_url) as connection:
        await connection.execute("set statement_timeout = '50ms'")
        with pytest.raises(DatabaseUnavailable, match="took too long") as raised, mapped_errors():
            await connection.execute("select pg_sleep(600)")
    assert raised.value.code == "57014"
    assert raised.value.hint
    assert "COORDINATOR_CALL_TIMEOUT_S" in raised.value.hint


async def test_a_waiter_behind_another_one_learns_who_blocks_both(db: Database, database_url: str) -> None:
    await db.run(SET)
    async with (
        holding(database_url, "select coordinator.signal_set('default', 'hot', '2')") as holder,
        Database.open(database_url, Config(min_connections=1, max_connections=1)) as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(refused, lambda: other.run(SET), holder, database_url)
        await refused(lambda: db.run(SET), holder, database_url)


@pytest.mark.parametrize(
    "call",
    [
        lambda agent: locks.Acquire(project="default", resources=["hot"], agent=agent),
        lambda agent: locks.Acquire(project="default", resources=["hot/deep/path"], agent=agent),
        lambda agent: locks.Acquire(project="default", resources=["src/", "hot/**/*.py"], agent=agent),
        lambda agent: locks.Cancel(project="default", ticket=1, agent=agent),
        lambda _: directives.Send(project="default", body="go", everyone=True, key="hot"),
        lambda _: signals.Set(project="default", key="FAILED", value=1),
    ],
)
async def test_a_role_that_may_only_connect_stops_no_call_for_long_and_is_named(
    db: Database, database_url: str, stranger_url: str, call: object
) -> None:
    agent = await db.run(agents.Register(project="default", name="a"))
    await db.run(rules.Set(project="default", when_set="FAILED", clears=["PASSED"]))
    operation = call(agent.id)  # type: ignore[operator]
    async with opened(database_url) as connection:
        keys = [row[0] for row in await connection.fetch(ALL_KEYS.replace("pg_advisory_xact_lock(key)", "key"))]
    take = "select " + ", ".join(f"pg_advisory_xact_lock({key})" for key in keys)
    async with holding(stranger_url, take) as holder:
        await refused(lambda: db.run(operation), holder, stranger_url)
    with suppress(NotFound):
        await db.run(operation)


async def test_no_read_needs_an_advisory_lock(db: Database, database_url: str) -> None:
    agent = await db.run(agents.Register(project="default", name="a"))
    await db.run(SET)
    values = {
        "project": "default",
        "key": "hot",
        "agent": agent.id,
        "id": 1,
        "name": "a",
        "resource": "hot",
        "paths": ["hot"],
        "hash": b"x" * 32,
        "tokens": [1],
        "ticket": 1,
    }
    tried = 0
    async with holding(database_url, ALL_KEYS):
        for operation in operations.every():
            if not operation.reads:
                continue
            given = {field: values[field] for field in operation.__struct_fields__ if field in values}
            with suppress(TypeError, NotFound, InvalidArgument, Unauthenticated):
                await db.run(operation(**given))
                tried += 1
    assert tried > 10


async def test_functions_bound_their_waits_whatever_the_session_sets(db: Database, database_url: str) -> None:
    await db.run(SET)
    async with holding(database_url, "select coordinator.signal_set('default', 'hot', '2')"):
        connection = await asyncpg.connect(database_url)
        try:
            assert await connection.fetchval("show lock_timeout") == "0"
            with pytest.raises(asyncpg.LockNotAvailableError):
                await connection.execute("select coordinator.signal_set('default', 'hot', '3')")
        finally:
            await connection.close()


async def test_each_function_that_callers_may_use_and_that_writes_bounds_its_waits(database_url: str) -> None:
    async with opened(database_url) as connection:
        unbound = await connection.fetch(
            "select proname from pg_proc where pronamespace = 'coordinator'::regnamespace and provolatile = 'v' and prosecdef"
            " and proname in (select function from coordinator.rights)"
            " and not coalesce(proconfig::text like '%lock_timeout=%', false)"
        )
    assert unbound == []


def test_advisory_locks_are_waited_for_in_one_place() -> None:
    waits = re.compile(r"\bpg_advisory_(xact_)?lock(_shared)?\(")
    places = [file.name for file in schema.files() if file.kind == "functions" and waits.search(file.text)]
    assert places == ["advisory.sql"]


async def test_a_second_request_with_the_same_key_waits_for_the_first_no_longer_than_a_call_may_take(
    db: Database, database_url: str
) -> None:
    claim = idempotency.Claim(project="default", caller="c", key="k", request="r")
    async with holding(database_url, "select coordinator.idempotency_claim('default', 'c', 'k', 'r')"):
        with pytest.raises(CoordinatorError) as raised:
            await db.run(claim)
        assert raised.value.code == "ZC306"


async def test_waits_are_bound_and_named_through_a_pooler_too(database_url: str, tmp_path: Path) -> None:
    config = Config(min_connections=1, max_connections=2, statement_cache_size=CACHE_SIZE)
    async with (
        pooled(database_url, tmp_path / "pooler") as url,
        Database.open(url, config, direct_dsn=database_url) as database,
    ):
        await database.run(SET)
        async with holding(database_url, "select coordinator.signal_set('default', 'hot', '2')") as holder:
            await refused(lambda: database.run(SET), holder, database_url)
        await database.run(SET)


def test_the_statement_of_a_call_sets_nothing() -> None:
    """So a session keeps nothing that a pooler could pass on to another client."""
    assert statement(signals.Set).startswith("select ")


async def test_what_a_transaction_holds_in_one_project_obstructs_the_loops_in_no_other(
    db: Database, database_url: str
) -> None:
    """The blocked project is the first one, so a loop that waited for it would not reach the other one."""
    for project in ("held", "free"):
        await db.run(projects.Create(project=project))
        holder = await db.run(agents.Register(project=project, name="holder"))
        waiter = await db.run(agents.Register(project=project, name="waiter"))
        await db.run(locks.Acquire(project=project, agent=holder.id, resources=["x"], ttl=timedelta(seconds=1)))
        [ticket] = await db.run(
            locks.Acquire(project=project, agent=waiter.id, resources=["x"], wait=timedelta(hours=12))
        )
        assert not ticket.granted

    async def held(table: str) -> set[str]:
        query = f"select p.name from coordinator.{table} t join coordinator.projects p on p.id = t.project_id where p.name <> 'default'"
        return {row["name"] for row in await connection.fetch(query)}

    queue = "select pg_advisory_xact_lock(coordinator.lock_queue_key(id)) from coordinator.projects where name = 'held'"
    process = "; select from coordinator.processes where name = 'gone' for update"
    async with opened(database_url) as connection:
        await connection.execute(LATER)
        await connection.execute(
            "insert into coordinator.processes (kind, name, started_at) values ('client', 'gone', now())"
        )
        warnings: list[str] = []
        connection.add_log_listener(lambda _, message: warnings.append(message.message))
        async with holding(database_url, queue + process):
            assert await connection.fetchval("select coordinator.lock_expire()") == 2
            assert await held("lock_waits") == {"held"}
            assert await connection.fetchval("select reaped from coordinator.agent_reap()") == 2
            assert await held("agents") == {"held"}
            assert [w.split(": ")[0] for w in warnings] == [
                f'{loop} passes over project "held" until its next run' for loop in ("lock_expire", "agent_reap")
            ]
        assert await connection.fetchval("select coordinator.lock_expire()") == 2
        assert await connection.fetchval("select reaped from coordinator.agent_reap()") == 2
        assert await held("lock_waits") == await held("agents") == set()
        assert await connection.fetchval("select missing_at from coordinator.processes where name = 'gone'")
