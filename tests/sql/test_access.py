"""Rights in the database, as each role that really logs in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from coordinator import operations
from coordinator.db.connection import connect, mapped_errors
from coordinator.errors import CoordinatorError, PermissionDenied
from coordinator.model.catalogue import ROLES
from coordinator.model.operation import Scope
from coordinator.model.token import Role
from tests.conftest import admin
from tests.nouns import Known
from tests.populated import parameters, populate, valid_arguments
from tests.waiting import DEADLINE_S

PUBLIC = [kind for kind in operations.every() if not kind.internal]
LADDER = [role.name for role in Role]
IN_PROJECT = (Scope.IN_PROJECT, Scope.PROJECT, Scope.AGENT)
INTERNAL = {"job_rows", "webhooks_live", "webhook_deliveries_live"}  # of all projects, for functions
CATALOGUE = {"event_types", "rights", "limits", "checks", "transaction_verbs"}

# A call of each function that somebody may call; NULL arguments are enough to learn whether one is let in.
ARGUMENTS = "select string_agg('null::' || format_type(t, null), ', ' order by n) from unnest(proargtypes) with ordinality u (t, n)"


def as_role(url: str, role: str) -> str:
    """The address with another role to log in as."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:secret@{place}"))


class Logins:
    """Roles that log in, of the test's own."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack

    async def make(self, group: str | None, *projects: str) -> asyncpg.Connection:
        """Make a role in a group, kept to projects, and log in as it."""
        name = f"login_{uuid4().hex[:8]}"
        # Only `create database` is needed in addition. The roles are dropped after the database.
        await admin(self._url, f"create role {name} login password 'secret'")
        self._stack.push_async_callback(admin, self._url, f"drop owned by {name}", f"drop role {name}")
        if group:
            await admin(self._url, f"grant coordinator_{group} to {name}")
        for project in projects:
            await admin(self._url, f"select coordinator.role_bind('{name}', '{project}')")
        connection = await connect(as_role(self._url, name))
        self._stack.push_async_callback(connection.close)
        return connection


@pytest.fixture
async def logins(database_url: str) -> AsyncIterator[Logins]:
    await admin(
        database_url,
        "select coordinator.project_create('alpha')",
        "select coordinator.project_create('beta')",
        "select coordinator.agent_register(p, 'agent of ' || p) from unnest('{alpha,beta}'::text[]) p",
        "select coordinator.signal_set(p, 'secret', to_jsonb('of ' || p)) from unnest('{alpha,beta}'::text[]) p",
        "select coordinator.relay_step()",
    )
    async with AsyncExitStack() as stack:
        yield Logins(database_url, stack)


@pytest.fixture
async def known(logins: Logins, database_url: str) -> dict[str, Known]:
    """Make one of everything in each project; return by project what arguments need to know of it."""
    owner = await connect(database_url)
    try:
        found = {project: await populate(owner, project) for project in ("alpha", "beta")}
        await owner.execute("select coordinator.relay_step()")
    finally:
        await owner.close()
    return found


@asynccontextmanager
async def refused() -> AsyncIterator[None]:
    """Expect 42501 from the database."""
    with pytest.raises(PermissionDenied) as raised, mapped_errors():
        yield
    assert raised.value.code == "42501"


def test_every_public_operation_has_a_role() -> None:
    assert [kind.function for kind in PUBLIC if kind.least_role() is None] == []


def test_what_a_reader_may_only_reads_and_what_others_may_beyond_that_changes_something() -> None:
    for kind in PUBLIC:
        # Of secrets, and of addresses.
        if kind.function not in ("token_list", "user_list") and not kind.function.startswith(("webhook_", "audit_")):
            assert kind.reads == (kind.least_role() is Role.reader), kind.function


async def test_the_view_says_the_same_of_every_operation(database_url: str) -> None:
    connection = await connect(database_url)
    try:
        rows = await connection.fetch(
            "select function, role, to_regproc('coordinator.' || function) as found from coordinator.rights"
        )
    finally:
        await connection.close()
    assert [row["function"] for row in rows if row["found"] is None] == []
    in_sql = {row["function"]: row["role"] for row in rows}
    assert len(in_sql) == len(rows)
    assert in_sql == {function: role.name for function, role in ROLES.items()}


@pytest.mark.parametrize("role", LADDER[:3])
async def test_a_role_may_call_exactly_what_the_table_of_rights_grants(logins: Logins, role: str) -> None:
    """Each function is called; a role with the right gets another error than 42501, or none."""
    connection = await logins.make(role)
    rows = await connection.fetch(f"""
        select case p.prokind when 'p' then 'call' else 'select' end as verb, p.proname as name, ({ARGUMENTS}) as arguments, r.role
        from pg_proc p
        left join coordinator.rights r on r.function = p.proname
        where p.pronamespace = 'coordinator'::regnamespace and p.prorettype <> 'trigger'::regtype order by p.proname""")  # fmt: skip
    may, does = set(), set()
    for row in rows:
        if row["role"] and LADDER.index(row["role"]) <= LADDER.index(role):
            may.add(row["name"])
        transaction = connection.transaction()
        await transaction.start()
        try:
            with mapped_errors():
                await connection.fetch(f"{row['verb']} coordinator.{row['name']}({row['arguments'] or ''})")
            does.add(row["name"])
        except PermissionDenied:
            pass
        except CoordinatorError:
            does.add(row["name"])
        finally:
            await transaction.rollback()
    assert does == may
    assert {
        "event_append",
        "agent_end",
        "relay_step",
        "signal_expire",
        "token_authenticate",
        "schema_grant",
    } & does == set()


@pytest.mark.parametrize("role", LADDER[:3])
async def test_tables_are_closed_and_views_and_the_catalogue_are_open(logins: Logins, role: str) -> None:
    connection = await logins.make(role)
    rows = await connection.fetch(
        "select relname, relkind, relrowsecurity from pg_class where relnamespace = 'coordinator'::regnamespace and relkind in ('r', 'p', 'v', 'S')"
    )
    for row in rows:
        if row["relname"] == "lock_waits_for":  # calls internal functions with the rights of who reads it
            continue
        if row["relkind"] == b"v":
            async with refused() if row["relname"] in INTERNAL else nullcontext():
                await connection.fetch(f"select * from coordinator.{row['relname']}")
            continue
        if row["relrowsecurity"]:
            await connection.fetch(f"select * from coordinator.{row['relname']}")
        elif row["relname"] in CATALOGUE:
            assert await connection.fetch(f"select * from coordinator.{row['relname']}")
        else:
            async with refused():
                await connection.fetch(f"select * from coordinator.{row['relname']}")
        if row["relkind"] != b"S":
            async with refused():
                await connection.execute(f"delete from coordinator.{row['relname']}")
        else:
            async with refused():
                await connection.execute(f"select setval('coordinator.{row['relname']}', 7)")


@pytest.mark.parametrize("role", LADDER[1:])
async def test_a_role_gets_the_position_of_its_write(logins: Logins, role: str) -> None:
    """It may not read the epoch, as who owns the schema may, but gets the same."""
    connection = await logins.make(role)
    async with connection.transaction():
        await connection.execute("select coordinator.event_emit('alpha', 'custom.x')")
        position = await connection.fetchval("select coordinator.position_now()")
        assert await connection.fetchval("select pg_current_xact_id()::text") == position.partition(".x")[2]
    assert await connection.fetchval("select coordinator.position_included($1, false)", position)
    assert (await connection.fetchval("select coordinator.event_head()")).partition(".")[0] == position.partition(".")[
        0
    ]


async def test_an_administrator_may_all_but_change_the_schema(logins: Logins) -> None:
    connection = await logins.make("admin")
    await connection.execute("select coordinator.project_create('gamma')")
    await connection.execute("select coordinator.relay_step()")
    assert await connection.fetchval("select count(*) from coordinator.signals") == 2
    for statement in (
        "create table coordinator.mine ()",
        "delete from coordinator.signals",
        "select coordinator.schema_close()",
        "select coordinator.access_apply()",
        "create or replace function coordinator.now_utc() returns timestamptz language sql return clock_timestamp()",
    ):
        async with refused():
            await connection.execute(statement)


async def test_a_role_that_may_write_begins_an_epoch(logins: Logins, database_url: str) -> None:
    connection = await logins.make("agent")
    owner = await connect(database_url)
    try:
        await owner.execute("select setval('coordinator.epoch_mark', 1)")  # as after a start of the server
    finally:
        await owner.close()
    assert await connection.fetchval("select version from coordinator.signal_set('default', 'k', '1')") > 10**12
    async with refused():
        await connection.execute("select setval('coordinator.epoch_mark', 1)")


async def test_a_role_without_a_group_gets_nothing(logins: Logins) -> None:
    connection = await logins.make(None)
    async with refused():
        await connection.fetch("select * from coordinator.signals_live")
    async with refused():
        await connection.fetch("select coordinator.project_list()")


async def test_a_role_kept_to_a_project_can_use_it_and_no_other(
    logins: Logins, known: dict[str, Known], database_url: str
) -> None:
    """Each function that is about a project, or an agent of it, with valid arguments, as the least role that may call it."""
    owner = await connect(database_url)
    by_role = {role: await logins.make(role.name, "alpha") for role in (Role.reader, Role.agent, Role.manager)}
    tried = set()
    try:
        for function, role in ROLES.items():
            if role is Role.admin:
                continue
            connection = by_role[role]
            taken = await parameters(owner, function)
            if {one.name for one in taken}.isdisjoint(("project", "agent")):
                continue
            for project, its in known.items():
                arguments = valid_arguments(function, taken, its)
                if "project" in {one.name for one in taken}:
                    arguments["project"] = f"'{project}'"
                given = ", ".join(f"p_{name} => {value}" for name, value in arguments.items())
                statement = f"select coordinator.{function}({given})"
                if project == "alpha":
                    transaction = connection.transaction()
                    await transaction.start()
                    try:
                        await connection.fetch(statement)
                    except asyncpg.PostgresError as error:
                        if (error.sqlstate or "")[:3] not in ("ZC2", "ZC3"):  # let in, but nothing is there
                            raise AssertionError(statement) from error
                    finally:
                        await transaction.rollback()
                else:
                    before = await owner.fetchval("select count(*) from coordinator.events")
                    async with refused():
                        await connection.fetch(statement)
                    assert await owner.fetchval("select count(*) from coordinator.events") == before, statement
            tried.add(function)
    finally:
        await owner.close()
    assert tried >= {
        kind.function for kind in PUBLIC if kind.scope in IN_PROJECT and kind.least_role() is not Role.admin
    }


@pytest.mark.usefixtures("known")
async def test_views_and_lists_show_a_kept_role_its_projects_only(logins: Logins) -> None:
    kept, free = await logins.make("reader", "alpha"), await logins.make("reader")
    names = await kept.fetch("""
        select relname from pg_class where relnamespace = 'coordinator'::regnamespace and relkind = 'v'
          and has_table_privilege(oid, 'select')""")
    seen = set()
    for (name,) in names:
        columns = await kept.fetch(
            "select attname from pg_attribute where attrelid = ('coordinator.' || $1)::regclass and attname in ('project', 'project_id')", name
        )  # fmt: skip
        if columns:
            query = f"select distinct project from coordinator.{name} where project is not null"
            assert {row[0] for row in await kept.fetch(query)} <= {"alpha"}, name
            if {row[0] for row in await free.fetch(query)} >= {"alpha", "beta"}:
                seen.add(name)
    assert seen >= {"signals_live", "documents_live", "agents_live", "directives_pending", "rules"}
    assert [row["project"] for row in await kept.fetch("select project from coordinator.project_list()")] == ["alpha"]
    projects = {row["project"] for row in await kept.fetch("select project from coordinator.events_since()")}
    assert projects == {"alpha"}
    assert {row["project"] for row in await free.fetch("select project from coordinator.events_since()")} >= {
        "alpha",
        "beta",
    }


@pytest.mark.usefixtures("known")
async def test_tables_that_are_open_to_readers_show_a_kept_role_the_rows_of_its_projects_only(logins: Logins) -> None:
    kept, free = await logins.make("reader", "alpha"), await logins.make("reader")
    number = dict(await free.fetch("select name, id from coordinator.projects"))
    assert dict(await kept.fetch("select name, id from coordinator.projects")) == {"alpha": number["alpha"]}
    of_projects = await free.fetch("""
        select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'project_id'
        where c.relnamespace = 'coordinator'::regnamespace and c.relrowsecurity""")
    for (table,) in of_projects:
        query = f"select distinct project_id from coordinator.{table}"
        assert {row[0] for row in await free.fetch(query)} >= {number["alpha"], number["beta"]}, table
        assert {row[0] for row in await kept.fetch(query)} == {number["alpha"]}, table
    assert {row[0] for row in of_projects} >= {"sessions", "artifacts"}
    query = "select username from coordinator.users"
    assert {row[0] for row in await free.fetch(query)} == {"user-of-alpha", "user-of-beta"}
    assert {row[0] for row in await kept.fetch(query)} == {"user-of-alpha"}


async def test_a_cheap_function_in_a_condition_cannot_look_behind_a_view(logins: Logins) -> None:
    connection = await logins.make("reader", "alpha")
    seen: list[str] = []
    connection.add_log_listener(lambda _, message: seen.append(str(message)))
    await connection.execute("""
        create function pg_temp.peek(p jsonb) returns boolean language plpgsql cost 0.0000001
        as $$ begin raise notice '%', p; return true; end $$""")
    await connection.fetch("select key from coordinator.signals_live where pg_temp.peek(value)")
    assert ["of alpha" in message for message in seen] == [True]


async def test_no_setting_and_no_set_role_leaves_a_project(logins: Logins) -> None:
    connection = await logins.make("agent", "alpha")
    await connection.execute("set role coordinator_agent")
    async with refused():
        await connection.fetch("select coordinator.signal_get('beta', 'secret')")
    assert {row[0] for row in await connection.fetch("select project from coordinator.signals_live")} == {"alpha"}
    await connection.execute("reset role")
    async with refused():
        await connection.execute("set session authorization coordinator_admin")
    await connection.execute("set search_path = pg_temp, coordinator, pg_catalog")
    await connection.execute(
        "create function pg_temp.projects_visible() returns text[] language sql return null::text[]"
    )
    async with refused():
        await connection.fetch("select coordinator.signal_get('beta', 'secret')")


async def test_a_project_that_is_not_there_looks_like_one_that_is_closed(logins: Logins) -> None:
    connection = await logins.make("agent", "alpha")
    messages = []
    for project in ("beta", "nowhere"):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await connection.fetch(f"select coordinator.signal_get('{project}', 'secret')")
        messages.append((raised.value.sqlstate, str(raised.value).replace(project, "…")))
    assert messages[0] == messages[1]


async def test_a_kept_role_stays_kept_when_its_project_is_deleted(logins: Logins, database_url: str) -> None:
    connection = await logins.make("agent", "alpha")
    await admin(database_url, "select coordinator.project_delete('alpha')")
    async with refused():
        await connection.fetch("select coordinator.signal_get('beta', 'secret')")
    assert await connection.fetch("select * from coordinator.signals_live") == []


async def test_what_holds_everywhere_is_refused_to_a_kept_role(logins: Logins) -> None:
    connection = await logins.make("manager", "alpha")
    for call in (
        "rule_set('alpha', 'A', '{B}', p_everywhere => true)",
        "rule_delete('alpha', 'REJECTED', p_everywhere => true)",
    ):
        async with refused():
            await connection.fetch(f"select coordinator.{call}")


async def test_binding_and_unbinding_hold_from_the_next_call_on(logins: Logins, database_url: str) -> None:
    connection = await logins.make("reader", "alpha")
    name = await connection.fetchval("select session_user")
    await admin(database_url, f"select coordinator.role_bind('{name}', 'beta')")
    assert await connection.fetchval("select value from coordinator.signal_get('beta', 'secret')") == "of beta"
    await admin(database_url, f"select coordinator.role_unbind('{name}', 'beta')")
    async with refused():
        await connection.fetch("select coordinator.signal_get('beta', 'secret')")


async def test_the_schema_can_be_applied_by_an_owner_who_may_not_create_roles(empty_url: str) -> None:
    from coordinator.db import schema

    name = f"owner_{uuid4().hex[:8]}"
    await admin(empty_url, f"create role {name} login password 'secret'")
    try:
        await admin(empty_url, f'grant create on database "{urlsplit(empty_url).path[1:]}" to {name}')
        connection = await connect(as_role(empty_url, name))
        try:
            await schema.apply(connection)
            statements = [row[0] for row in await connection.fetch("select coordinator.role_statements()")]
            assert all(statement.startswith("create role coordinator_") for statement in statements)
        finally:
            await connection.close()
    finally:
        await admin(empty_url, f"drop owned by {name} cascade", f"drop role {name}")


async def test_an_apply_leaves_exactly_the_privileges_that_rights_grants(database_url: str) -> None:
    acls = """
        select p.oid::regprocedure::text, (select array_agg(a::text order by a::text) from unnest(p.proacl) a) from pg_proc p
        where p.pronamespace = 'coordinator'::regnamespace
        union all
        select c.oid::regclass::text, (select array_agg(a::text order by a::text) from unnest(c.relacl) a) from pg_class c
        where c.relnamespace = 'coordinator'::regnamespace order by 1"""
    connection = await connect(database_url)
    try:
        before = await connection.fetch(acls)
        for statement in (
            "grant execute on function coordinator.project_list, coordinator.access_views to public",
            "grant execute on function coordinator.access_views, coordinator.project_delete to coordinator_reader",
            "revoke execute on function coordinator.project_list from coordinator_agent, coordinator_admin",
            "grant all on coordinator.signals, coordinator.signals_live, coordinator.event_types to coordinator_manager",
            "revoke all on coordinator.projects_live from coordinator_reader",
        ):
            await connection.execute(statement)
        changed = await connection.fetch(acls)
        await connection.execute("select coordinator.schema_close()")
        after = await connection.fetch(acls)
    finally:
        await connection.close()
    assert len([one for one, other in zip(before, changed, strict=True) if one != other]) == 7
    assert after == before


async def test_with_head_only_the_newest_cursor_is_notified(database_url: str) -> None:
    import anyio

    heard: list[tuple[str, str]] = []
    listener, writer = await connect(database_url), await connect(database_url)
    try:
        for channel in ("coordinator", "coordinator.default.signal"):
            await listener.add_listener(channel, lambda *call: heard.append((call[2], call[3])))
        assert await writer.fetchval("select coordinator.event_configure('head')")
        assert not await writer.fetchval("select coordinator.event_configure('head')")
        await writer.execute(
            "select coordinator.signal_set('default', 'k', '1'), coordinator.signal_set('default', 'l', '1')"
        )
        await writer.execute("select coordinator.relay_step()")
        head = await writer.fetchval("select coordinator.event_head()")
        with anyio.fail_after(DEADLINE_S):
            while not heard:
                await listener.execute("select 1")
        await listener.execute("select 1")
        assert heard == [("coordinator", head)]
    finally:
        await listener.close()
        await writer.close()


@pytest.mark.parametrize(("payloads", "whole"), [("full", True), ("pointer", False)])
async def test_notifications_carry_what_was_configured(database_url: str, payloads: str, whole: bool) -> None:
    import json

    import anyio

    heard: list[dict[str, Any]] = []
    listener, writer = await connect(database_url), await connect(database_url)
    try:
        await listener.add_listener("coordinator.default.signal", lambda *call: heard.append(json.loads(call[3])))
        await writer.execute("select coordinator.event_configure($1)", payloads)
        await writer.execute("select coordinator.signal_set('default', 'k', '\"what nobody may overhear\"')")
        await writer.execute("select coordinator.relay_step()")
        with anyio.fail_after(DEADLINE_S):
            while not heard:
                await listener.execute("select 1")
        assert ("what nobody may overhear" in str(heard)) is whole
        assert (heard[0].get("pointer") is True) is not whole
        event = await writer.fetchrow("select * from coordinator.events_since(p_topics => '{signal.set}')")
        assert event["cursor"] == heard[0]["cursor"]
    finally:
        await listener.close()
        await writer.close()


async def test_a_transaction_may_do_what_its_caller_may_do_alone(logins: Logins, database_url: str) -> None:
    """Within one, the database checks each function for the role that calls it, also after SET ROLE."""
    run = "select * from coordinator.transaction_run($1, $2)"
    emit, send = {"verb": "event_emit", "type": "custom.x"}, {"verb": "directive_send", "body": "x", "everyone": True}
    agent, manager = await logins.make("agent", "alpha"), await logins.make("manager", "alpha")
    assert len(await agent.fetch(run, "alpha", [emit])) == 1
    assert len(await manager.fetch(run, "alpha", [emit, send])) == 2
    async with refused():
        await agent.fetch(run, "alpha", [emit, send])
    async with refused():
        await manager.fetch(run, "beta", [emit])
    owner = await connect(database_url)
    try:
        await owner.execute("set role coordinator_agent")
        assert len(await owner.fetch(run, "alpha", [emit])) == 1
        async with refused():
            await owner.fetch(run, "alpha", [emit, send])
    finally:
        await owner.close()


async def test_a_role_of_agents_registers_no_name_of_a_token_or_of_a_higher_role(
    logins: Logins, database_url: str
) -> None:
    agent, manager = await logins.make("agent"), await logins.make("manager")
    boss = await manager.fetchval("select session_user::text")
    await admin(
        database_url, "select coordinator.token_create('lead', 'manager', repeat('a', 64), 'coo_abcd', 'alpha')"
    )
    for name in ("lead", "coordinator", boss, await connect_name(database_url)):
        async with refused():
            await agent.fetch("select coordinator.agent_register('alpha', $1)", name)
    for name, project in (
        ("lead", "beta"),
        ("coder", "alpha"),
        (await agent.fetchval("select session_user::text"), "alpha"),
    ):
        await agent.fetch("select coordinator.agent_register($1, $2)", project, name)
    await manager.fetch("select coordinator.agent_register('alpha', 'lead')")


async def connect_name(url: str) -> str:
    connection = await connect(url)
    try:
        name: str = await connection.fetchval("select session_user::text")
        return name
    finally:
        await connection.close()
