from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from coordinator.operations import agents, directives, locks, projects, rules, signals, users
from tests.conftest import Transaction
from tests.populated import populate
from tests.sql.refusal import refused


async def test_default_exists(tx: Transaction) -> None:
    assert "default" in [row.project for row in await tx.run(projects.List())]


async def test_a_created_project_is_listed_by_name_with_its_description(tx: Transaction) -> None:
    await tx.run(projects.Create(project="zebra"))
    made = await tx.run(projects.Create(project="ant", description="small"))
    assert made.description == "small"
    assert [row.project for row in await tx.run(projects.List())] == ["ant", "default", "zebra"]


async def test_a_name_that_is_taken_is_a_conflict(tx: Transaction) -> None:
    await refused(tx, projects.Create(project="default"), "ZC301")


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a b", "a/b", "ä", "a" * 37, "a\n", "a.b", "*"])
async def test_a_name_that_would_not_fit_a_channel_is_refused(tx: Transaction, name: str) -> None:
    await refused(tx, projects.Create(project=name), "ZC103")


async def test_a_description_is_one_line(tx: Transaction) -> None:
    await refused(tx, projects.Create(project="p", description="a\nb"), "ZC103")


async def test_show_counts_what_a_project_holds(tx: Transaction) -> None:
    agent = await tx.run(agents.Register(project="default", name="a"))
    await tx.run(signals.Set(project="default", key="k", value=1))
    for _ in range(2):
        sent = await tx.run(directives.Send(project="default", body="x", to_agent="a"))
    await tx.run(directives.Revoke(project="default", directive=sent.id))
    await tx.set_clock(timedelta(0))
    for resource, seconds in (("a", 10), ("b", 20), ("c", 20)):
        await tx.run(
            locks.Acquire(project="default", resources=[resource], agent=agent.id, ttl=timedelta(seconds=seconds))
        )
    await tx.set_clock(timedelta(seconds=15))  # one has expired, and waits for the loop
    shown = await tx.run(projects.Show(project="default"))
    assert (shown.agent_count, shown.signal_count, shown.directive_count, shown.lock_count) == (1, 1, 1, 2)


async def test_a_project_has_a_user_a_title_and_settings_which_change_one_by_one(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    await tx.run(users.Create(username="ada"))
    made = await tx.run(projects.Create(project="p", username="Ada", title="Shop", settings={"n": [1, None]}))
    assert (made.username, made.title, made.settings, made.updated_at) == (
        "ada",
        "Shop",
        {"n": [1, None]},
        made.created_at,
    )
    await tx.set_clock(timedelta(hours=1))
    changed = await tx.run(projects.Set(project="p", title="", settings={}))
    assert (changed.username, changed.title, changed.settings, changed.description) == ("ada", "", {}, "")
    assert changed.updated_at - changed.created_at == timedelta(hours=1)
    await tx.set_clock(timedelta(hours=2))
    assert await tx.run(projects.Set(project="p", title="", username="ada")) == changed
    assert changed in await tx.run(projects.List())
    shown = await tx.run(projects.Show(project="p"))
    assert (shown.username, shown.title, shown.settings, shown.updated_at) == ("ada", "", {}, changed.updated_at)
    last = (await tx.events())[-1]
    assert (last["type"], last["data"]) == ("project.changed", {"fields": ["title", "settings"], "paths": "normal"})
    await refused(tx, projects.Set(project="p", username="nobody"), "ZC220")
    await refused(tx, projects.Create(project="q", username="nobody"), "ZC220")
    await refused(tx, projects.Set(project="p", title="a\nb"), "ZC103")
    await tx.run(users.Delete(username="ada"))
    assert (await tx.run(projects.Show(project="p"))).username is None


# What is of no project, or is left for a reason.
LEFT = {
    "events": "leave the log as they are pruned",
    "users": "belong to no project",
    "user_passwords": "belong to users",
}
TABLES = """
select c.relname, exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'project_id')
from pg_class c where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition"""
TRAIL = "select count(*) from coordinator.entries where log_id = (select id from coordinator.logs where project_id = 0)"
CASCADING = """
select c.relname from pg_constraint k join pg_class c on c.oid = k.conrelid
where k.confrelid = 'coordinator.projects'::regclass and k.confdeltype = 'c'"""
FILL = """
select coordinator.agent_deregister((select id from coordinator.agent_register($1, 'ended')));
select coordinator.knowledge_put($1, 'near', 'Text.', p_embedding => '{1,0}');
select coordinator.job_enqueue($1, 'done', p_dedupe_key => 'once');
select coordinator.job_cancel($1, (select id from coordinator.job_enqueue($1, 'done')));
insert into coordinator.job_changes (project_id, jobs, actor, requested_at) select id, '{}', 'x', now() from coordinator.projects where name = $1"""
TURNS = {"job_lock_turns", "job_lock_waits", "job_waits"}  # for a moment; they go with the jobs


async def test_delete_takes_every_row_of_the_project_and_of_no_other(tx: Transaction) -> None:
    async def rows() -> Counter[str]:
        """Count the rows of each table, without the trail of what concerns no project."""
        found = Counter(
            {table: await tx.connection.fetchval(f"select count(*) from coordinator.{table}") for table in tables}
        )
        found["entries"] -= await tx.connection.fetchval(TRAIL)
        return found

    tables = dict(await tx.connection.fetch(TABLES))
    await tx.run(projects.Create(project="other"))
    await populate(tx.connection, "other")
    before = await rows()
    await tx.run(projects.Create(project="p"))
    number = await tx.connection.fetchval("select id from coordinator.projects where name = 'p'")
    await populate(tx.connection, "p")
    for statement in FILL.split(";"):
        await tx.connection.execute(statement, "p")
    filled = {table for table, of_project in tables.items() if of_project and await of(tx, table, number)}
    empty = {table for table, of_project in tables.items() if of_project} - filled
    cascading = {table for (table,) in await tx.connection.fetch(CASCADING)}
    assert empty - cascading == TURNS
    assert await tx.run(projects.Delete(project="p"))
    assert {table for table in filled if await of(tx, table, number)} == set()
    left = await rows() - before
    assert left.keys() <= LEFT.keys()
    assert not before - await rows(), "rows of another project went"
    last = (await tx.events())[-1]
    assert (last["type"], last["project"], last["key"], last["data"]) == ("project.deleted", "p", "p", {})


async def of(tx: Transaction, table: str, project: int) -> int:
    return int(await tx.connection.fetchval(f"select count(*) from coordinator.{table} where project_id = $1", project))


async def test_default_cannot_be_deleted(tx: Transaction) -> None:
    await refused(tx, projects.Delete(project="default"), "ZC105")


@pytest.mark.parametrize(
    "operation",
    [
        projects.Show(project="no"),
        projects.Delete(project="no"),
        signals.Set(project="no", key="k", value=1),
        signals.Get(project="no", key="k"),
        signals.List(project="no"),
        signals.Delete(project="no", key="k"),
        agents.Register(project="no", name="a"),
        agents.List(project="no"),
        rules.Set(project="no", when_set="A", clears=["B"]),
        rules.List(project="no"),
        rules.Delete(project="no", when_set="A"),
        directives.Send(project="no", body="x", everyone=True),
        directives.Inbox(project="no", agent="a"),
        directives.Acknowledge(project="no", directive=1, agent="a"),
        directives.Revoke(project="no", directive=1),
        directives.List(project="no"),
        directives.ListPending(project="no"),
    ],
    ids=lambda operation: operation.function,
)
async def test_an_unknown_project_is_not_found(tx: Transaction, operation: object) -> None:
    error = await refused(tx, operation, "ZC201")  # type: ignore[arg-type]
    assert '"no"' in error.message
