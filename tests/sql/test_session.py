"""Sessions: created by a caller or by the first that is appended, changed, listed by recency, archived."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from coordinator.db.connection import connect, mapped_errors
from coordinator.errors import Conflict
from coordinator.operations import projects, sessions
from tests.conftest import Transaction
from tests.sql.refusal import refused

P = "default"

USERS = """
insert into coordinator.users (username, role, actor, created_at, updated_at)
select u, 'agent', 'test', now(), now() from unnest($1::text[]) u"""
ENTER = "select coordinator.session_enter((select id from coordinator.projects where name = $1), $2, coordinator.now_utc(), 'someone')"


async def created(tx: Transaction, session: str | None = None, **fields: Any) -> str:
    return (await tx.run(sessions.Create(project=P, session=session, **fields))).session


async def continued(tx: Transaction, session: int) -> None:
    with mapped_errors():
        async with tx.connection.transaction():
            await tx.connection.execute("select coordinator.session_continue($1, coordinator.now_utc())", session)


async def test_a_session_has_what_was_given_and_by_default_a_new_uuid_as_its_key(tx: Transaction) -> None:
    await tx.connection.execute(USERS, ["ada"])
    made = await tx.run(
        sessions.Create(
            project=P, username="Ada", title="Port", mission="Port the parser.\nAll of it.", context={"n": [1, None]}
        )
    )
    assert str(UUID(made.session)) == made.session
    assert (made.username, made.title, made.status, made.context) == ("ada", "Port", "active", {"n": [1, None]})
    assert made == await tx.run(sessions.Show(project=P, session=made.session))
    (event,) = await tx.events()
    assert (event["type"], event["key"], event["data"]) == (
        "session.created",
        made.session,
        {"username": "ada", "status": "active"},
    )


async def test_a_key_that_is_taken_is_a_conflict_and_the_first_keeps_it(tx: Transaction) -> None:
    await created(tx, "s", title="first")
    error = await refused(tx, sessions.Create(project=P, session="s", title="second"), "ZC301")
    assert '"s"' in error.message
    assert (await tx.run(sessions.Show(project=P, session="s"))).title == "first"


async def test_a_session_of_a_user_that_does_not_exist_is_refused(tx: Transaction) -> None:
    await created(tx, "s")
    for operation in (
        sessions.Create(project=P, username="nobody"),
        sessions.Set(project=P, session="s", username="nobody"),
        sessions.List(project=P, username="nobody"),
    ):
        await refused(tx, operation, "ZC220")  # type: ignore[arg-type]


async def test_an_unknown_session_is_not_found_and_the_nearest_is_named(tx: Transaction) -> None:
    await created(tx, "review-42")
    for operation in (
        sessions.Show(project=P, session="reveiw-42"),
        sessions.Set(project=P, session="reveiw-42", title="x"),
        sessions.Archive(project=P, session="reveiw-42"),
    ):
        error = await refused(tx, operation, "ZC215")
        assert '"reveiw-42"' in error.message
        assert '"review-42"' in (error.hint or "")


@pytest.mark.parametrize("status", ["", "Active", "1st", "a b", "ä", "a" * 37, "a\n"])
async def test_a_status_is_one_word(tx: Transaction, status: str) -> None:
    await created(tx, "s")
    await refused(tx, sessions.Create(project=P, status=status), "ZC103")
    await refused(tx, sessions.Set(project=P, session="s", status=status), "ZC103")


async def test_set_changes_what_is_given_and_says_which(tx: Transaction) -> None:
    await tx.connection.execute(USERS, ["ada"])
    await created(tx, "s", title="t", mission="m", context={"a": 1})
    changed = await tx.run(sessions.Set(project=P, session="s", status="done", username="ada", title="t"))
    assert (changed.title, changed.mission, changed.status, changed.context) == ("t", "m", "done", {"a": 1})
    last = (await tx.events())[-1]
    assert (last["type"], last["data"]) == ("session.changed", {"fields": ["username", "status"], "status": "done"})
    await tx.run(sessions.Set(project=P, session="s", title="", mission="", context={}))
    emptied = await tx.run(sessions.Show(project=P, session="s"))
    assert (emptied.title, emptied.mission, emptied.context) == ("", "", {})


async def test_set_without_a_difference_changes_nothing(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    await created(tx, "s", title="t")
    before = await tx.run(sessions.Show(project=P, session="s"))
    await tx.set_clock(timedelta(hours=1))
    assert await tx.run(sessions.Set(project=P, session="s", title="t")) == before
    assert [event["type"] for event in await tx.events()] == ["session.created"]


async def test_sessions_are_listed_by_recency_and_selected_by_user_and_status(tx: Transaction) -> None:
    await tx.connection.execute(USERS, ["ada", "bob"])
    await tx.run(projects.Create(project="other"))
    await tx.run(sessions.Create(project="other", session="elsewhere", username="ada"))
    for number, (name, username) in enumerate([("a", "ada"), ("b", "bob"), ("c", "ada"), ("d", None)]):
        await tx.set_clock(timedelta(seconds=number))
        await created(tx, name, username=username)
    await tx.set_clock(timedelta(minutes=1))
    await tx.run(sessions.Set(project=P, session="a", status="done"))

    async def listed(**fields: Any) -> list[str]:
        return [row.session for row in await tx.run(sessions.List(project=P, **fields))]

    assert await listed() == ["a", "d", "c", "b"]
    assert await listed(username="ADA") == ["a", "c"]
    assert await listed(status="active") == ["d", "c", "b"]
    assert await listed(username="ada", status="active") == ["c"]


async def test_an_archived_session_refuses_what_is_appended_until_it_gets_another_status(tx: Transaction) -> None:
    number = await tx.connection.fetchval(ENTER, P, "s")
    archived = await tx.run(sessions.Archive(project=P, session="s"))
    assert archived.status == "archived"
    assert await tx.run(sessions.Archive(project=P, session="s")) == archived
    assert [event["type"] for event in await tx.events()] == ["session.created", "session.archived"]
    with pytest.raises(Conflict) as raised:
        await continued(tx, number)
    assert (raised.value.code, '"s"' in raised.value.message) == ("ZC332", True)
    with pytest.raises(Conflict), mapped_errors():
        async with tx.connection.transaction():
            await tx.connection.fetchval(ENTER, P, "s")
    await tx.run(sessions.Set(project=P, session="s", status="active"))
    await continued(tx, number)
    assert await tx.connection.fetchval(ENTER, P, "s") == number
    await refused(tx, sessions.Set(project=P, session="s", status="archived"), "ZC105")


async def test_the_first_that_enters_creates_the_session_once(tx: Transaction) -> None:
    first = await tx.connection.fetchval(ENTER, P, "s")
    assert await tx.connection.fetchval(ENTER, P, "s") == first
    (event,) = await tx.events()
    assert (event["type"], event["actor"], event["data"]) == (
        "session.created",
        "someone",
        {"username": None, "status": "active"},
    )


async def test_use_moves_a_session_to_the_front_once_a_minute(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    number = await tx.connection.fetchval(ENTER, P, "s")
    begun = (await tx.run(sessions.Show(project=P, session="s"))).updated_at
    for seconds, noted in ((59, 0), (61, 61), (100, 61), (121, 61), (122, 122)):
        await tx.set_clock(timedelta(seconds=seconds))
        await continued(tx, number)
        seen = (await tx.run(sessions.Show(project=P, session="s"))).updated_at
        assert seen - begun == timedelta(seconds=noted)


async def test_sixteen_who_enter_at_once_enter_one_session(database_url: str) -> None:
    connections = [await connect(database_url) for _ in range(16)]
    try:
        for round_ in range(5):
            found = await asyncio.gather(*(c.fetchval(ENTER, P, f"s{round_}") for c in connections))
            assert len({*found}) == 1
        events = await connections[0].fetch("select key from coordinator.events where type = 'session.created'")
        assert sorted(row["key"] for row in events) == [f"s{round_}" for round_ in range(5)]
    finally:
        for connection in connections:
            await connection.close()


async def test_whoever_has_entered_finishes_before_the_session_is_archived(
    database_url: str, bounded_waits: None
) -> None:
    writer, archiver = await connect(database_url), await connect(database_url)
    try:
        await writer.fetchval(ENTER, P, "s")
        transaction = writer.transaction()
        await transaction.start()
        await writer.fetchval(ENTER, P, "s")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await archiver.execute("select coordinator.session_archive('default', 's')")
        await transaction.commit()
        await archiver.execute("select coordinator.session_archive('default', 's')")
    finally:
        await writer.close()
        await archiver.close()


async def test_a_use_waits_for_nobody(database_url: str) -> None:
    """Its header is locked already, and the session comes before headers."""
    user, changer = await connect(database_url), await connect(database_url)
    try:
        number = await user.fetchval(ENTER, P, "s")
        await user.execute("update coordinator.sessions set updated_at = updated_at - interval '1 hour'")
        async with changer.transaction():
            await changer.execute("select coordinator.session_set('default', 's', p_title => 't')")
            await user.execute("select coordinator.session_continue($1, coordinator.now_utc())", number)
    finally:
        await user.close()
        await changer.close()


async def test_a_project_is_deleted_with_its_sessions(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))
    await tx.run(sessions.Create(project="p", session="s"))
    await created(tx, "s")
    await tx.run(projects.Delete(project="p"))
    assert await tx.connection.fetchval("select count(*) from coordinator.sessions") == 1


@pytest.mark.parametrize("filters", [{}, {"username": "user7"}, {"status": "done"}])
async def test_a_page_of_sessions_reads_an_index_in_its_order(tx: Transaction, filters: dict[str, str]) -> None:
    await tx.connection.execute(USERS, [f"user{n}" for n in range(10)])
    await tx.connection.execute("""
        insert into coordinator.sessions (project_id, key, user_id, status, actor, created_at, updated_at)
        select p.id, 's' || n, u.id, case when n % 50 = 0 then 'done' else 'active' end, 'a', now(), now() - n * interval '1 second'
        from generate_series(1, 5000) n, coordinator.projects p, coordinator.users u
        where p.name = 'default' and u.username = 'user' || n % 10""")
    for analysed in (False, True):
        if analysed:
            await tx.connection.execute("analyze coordinator.sessions")
        await tx.connection.execute("set local enable_sort = off")
        before = await tx.connection.fetchval(
            "select pg_stat_get_xact_tuples_fetched('coordinator.sessions'::regclass)"
        )
        rows = await tx.run(sessions.List(project=P, limit=20, **filters))  # type: ignore[arg-type]
        read = (
            await tx.connection.fetchval("select pg_stat_get_xact_tuples_fetched('coordinator.sessions'::regclass)")
            - before
        )
        assert len(rows) == 20
        assert read <= 40, (analysed, read)
