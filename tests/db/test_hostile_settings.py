"""Whatever a database or a role sets for its sessions, calls do the same."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from coordinator.config import Config
from coordinator.db import schema
from coordinator.db.connection import DECISIVE, connect
from coordinator.db.database import Database
from coordinator.errors import ConfigurationError, DatabaseUnavailable, NotFound
from coordinator.operations import agents, directives, events, locks, projects, rules, signals
from coordinator.operations.work import LeaderRenew, ProcessRegister, RelayStep
from tests.concurrency.pooler import CACHE_SIZE, pooled
from tests.conftest import admin

CONFIG = Config(min_connections=1, max_connections=2)

# These make the database useless for everybody; only a superuser can set some of them.
FATAL = {
    "dynamic_library_path": "where no procedural language is",
    "local_preload_libraries": "a library that does not exist",
    "session_preload_libraries": "a library that does not exist",
    "post_auth_delay": "a debugger's time to attach",
}
SETTINGS = """
select name, vartype, unit, min_val, max_val, enumvals, setting from pg_settings
where context in ('user', 'superuser', 'backend', 'superuser-backend') and name <> all ($1)
union all select 'plpgsql.variable_conflict', 'enum', null, null, null, '{error,use_variable,use_column}', 'error'
union all select 'plpgsql.extra_errors', 'enum', null, null, null, '{none,all}', 'none'
union all select 'plpgsql.check_asserts', 'bool', null, null, null, null, 'on'
order by name
"""
SOME = (
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "on"),
    ("idle_in_transaction_session_timeout", "1"),
    ("idle_session_timeout", "1"),
    ("lock_timeout", "1"),
    ("plpgsql.extra_errors", "all"),
    ("search_path", "hostile"),
    ("standard_conforming_strings", "off"),
    ("statement_timeout", "1"),
    ("transform_null_equals", "on"),
)


HOSTILE = {
    "default_transaction_isolation": "serializable",
    "plpgsql.variable_conflict": "use_variable",
    "session_replication_role": "replica",
    "standard_conforming_strings": "off",
}


async def exercise(database: Database, project: str) -> None:
    """Use each kind of function once: those with triggers, regular expressions, arrays, JSON, intervals, errors."""
    run = database.run
    await run(projects.Create(project=project))
    agent = await run(agents.Register(project=project, name="a", job_types=["x", "y"]))
    await run(rules.Set(project=project, when_set="FAILED", clears=["PASSED"]))
    await run(signals.Set(project=project, key="b/PASSED", value={"a\\b": [1.5, None, "ü"]}, agent=agent.id))
    assert (await run(signals.Get(project=project, key="b/PASSED"))).value == {"a\\b": [1.5, None, "ü"]}
    await run(signals.Set(project=project, key="b/FAILED", value=None, ttl=timedelta(days=40, microseconds=1)))
    with pytest.raises(NotFound):
        await run(signals.Get(project=project, key="b/PASSED"))
    sent = await run(directives.Send(project=project, body="go", to_agent="a", key="k"))
    await run(directives.Acknowledge(project=project, directive=sent.id, agent="a", status="done"))
    for resource in ("src/a.py", "src/", "name:x", "docs/**/[a-c]?.md"):
        (grant,) = await run(locks.Acquire(project=project, resources=[resource], agent=agent.id))
        assert [held.resource for held in await run(locks.List(project=project))] == [grant.resource]
        await run(locks.Release(project=project, resources=[resource], agent=agent.id, tokens=[grant.fencing_token]))
    process = await run(ProcessRegister(kind="client", name="p"))
    await run(LeaderRenew(process=process))
    while (await run(RelayStep())).again:
        pass
    found = [event.type for event in await run(events.Since(project=project))]
    assert {"signal.set", "signal.cleared", "lock.granted", "directive.sent"} <= set(found)
    await run(agents.Deregister(agent=agent.id))
    await run(projects.Delete(project=project))


@asynccontextmanager
async def setting(server_url: str, database_url: str, name: str, value: str) -> AsyncIterator[bool]:
    """Set a setting for all sessions of the database; yield false if the server does not accept it."""
    place = f"alter database {urlsplit(database_url).path[1:]}"
    quoted = value.replace("'", "''")
    try:
        await admin(server_url, f"{place} set {name} = '{quoted}'")
    except asyncpg.PostgresError:
        yield False
        return
    try:
        yield True
    finally:
        await admin(server_url, f"{place} reset all")


def hostile(row: asyncpg.Record) -> list[str]:
    """Return values of a setting: all of a short list, the bounds of a range, nonsense for a text."""
    match row["vartype"]:
        case "bool":
            return ["on", "off"]
        case "enum":
            return list(row["enumvals"])
        case "integer" | "real":
            return list(dict.fromkeys([row["min_val"], "1", row["max_val"]]))
        case _:
            return ["", "hostile"]


@pytest.mark.parametrize(("name", "value"), SOME)
async def test_a_setting_of_the_database_changes_no_call(
    server_url: str, database_url: str, name: str, value: str
) -> None:
    async with setting(server_url, database_url, name, value) as set_:
        assert set_
        async with Database.open(database_url, CONFIG) as database:
            await exercise(database, "p")


async def test_calls_are_not_compiled_even_if_the_server_compiles_costly_ones(
    server_url: str, database_url: str
) -> None:
    async with setting(server_url, database_url, "jit", "on") as set_:
        assert set_
        connection = await connect(database_url)
        try:
            assert await connection.fetchval("show jit") == "off"
        finally:
            await connection.close()


async def test_settings_of_the_database_do_not_prevent_the_schema_from_being_applied(
    server_url: str, empty_url: str
) -> None:
    for name, value in SOME:
        await admin(server_url, f"alter database {urlsplit(empty_url).path[1:]} set {name} = '{value}'")
    connection = await connect(empty_url)
    try:
        await schema.apply(connection)
        await schema.verify(connection)
    finally:
        await connection.close()


@pytest.mark.parametrize("name", DECISIVE)
async def test_a_setting_that_a_pooler_lets_through_is_an_error_with_a_remedy(
    server_url: str, database_url: str, tmp_path: Path, name: str
) -> None:
    value = HOSTILE.get(name, "on")
    async with setting(server_url, database_url, name, value) as set_, pooled(database_url, tmp_path / "p") as url:
        if not set_:
            pytest.skip("this version of PostgreSQL has no other value")
        config = Config(min_connections=1, max_connections=1, statement_cache_size=CACHE_SIZE)
        with pytest.raises(ConfigurationError) as raised:
            async with Database.open(url, config):
                pass
        assert f'{name} = "{value}"' in raised.value.message
        assert raised.value.hint
        remedy = raised.value.hint.removeprefix("Run: ").partition(". Then")[0]
        await admin(server_url, remedy)
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select current_setting($1)", name) == DECISIVE[name]
    await connection.close()


@pytest.mark.long
async def test_no_setting_of_the_database_changes_a_call(server_url: str, database_url: str, seed: int) -> None:
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(SETTINGS, list(FATAL))
    await connection.close()
    random.Random(seed).shuffle(rows)
    wrong: dict[tuple[str, str], str] = {}
    tried = 0
    for row in rows:
        for value in hostile(row):
            if value == row["setting"]:
                continue
            async with setting(server_url, database_url, row["name"], value) as set_:
                if not set_:
                    continue
                tried += 1
                try:
                    async with Database.open(database_url, CONFIG) as database:
                        await exercise(database, f"p{tried}")
                except ConfigurationError as error:
                    if row["name"] not in DECISIVE or row["name"] not in error.message:
                        wrong[row["name"], value] = repr(error)[:300]
                except DatabaseUnavailable as error:  # a millisecond is over before we can lift the limit
                    if row["name"] != "transaction_timeout" or "due to transaction timeout" not in error.message:
                        wrong[row["name"], value] = repr(error)[:300]
                except Exception as error:  # noqa: BLE001 - all of them are reported
                    wrong[row["name"], value] = repr(error)[:300]
    print(f"{tried} values of {len(rows)} settings")  # noqa: T201
    assert not wrong, "\n".join(f"{name} = {value}: {error}" for (name, value), error in sorted(wrong.items()))
    assert tried > 200
