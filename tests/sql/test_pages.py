"""Pages of every list: in order, without loss or repetition, with ties at each border, and whatever comes and goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from msgspec import Raw
from msgspec.structs import replace

from coordinator.errors import InvalidArgument
from coordinator.model.agent import Agent
from coordinator.model.operation import JsonText, Operation
from coordinator.model.page import walk
from coordinator.model.token import new_secret
from coordinator.operations import (
    agents,
    artifacts,
    crons,
    directives,
    documents,
    job_history,
    job_trees,
    job_waits,
    jobs,
    knowledge,
    limits,
    locks,
    logs,
    memories,
    projects,
    queues,
    retentions,
    rules,
    sessions,
    signals,
    tokens,
    transfers,
    users,
)
from tests.catalogue.test_operations import OPERATIONS
from tests.conftest import Transaction

P = "default"
JOB = UUID(int=7)


async def agent(tx: Transaction, name: str, role: str | None = None) -> Agent:
    return await tx.run(agents.Register(project=P, name=name, role=role))


async def some_signals(tx: Transaction) -> None:
    for key in ("a", "a/1", "a/10", "a/2", "a/é", "b", "\U0001f600"):
        await tx.run(signals.Set(project=P, key=key, value=1))


async def some_agents(tx: Transaction) -> None:
    for name in ("a", "twin", "twin", "twin", "twin", "twin", "z"):
        await agent(tx, name)


async def some_rules(tx: Transaction) -> None:
    for when_set, everywhere in (("A", True), ("A", False), ("B", True), ("B", False), ("C", False)):
        await tx.run(rules.Set(project=P, when_set=when_set, clears=["X"], everywhere=everywhere))


async def some_retention(tx: Transaction) -> None:
    for kind, everywhere in (("a", True), ("a", False), ("b", True), ("c", False)):
        await tx.run(retentions.Set(project=P, subject="log", kind=kind, everywhere=everywhere))


async def some_beyond_retention(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for kind in ("a", "b", "c"):
        for days in (0, 2):
            await tx.set_clock(timedelta(days=days))
            entries = "[" + ", ".join(['{"data": 1}'] * 5) + "]"
            await tx.connection.execute("select coordinator.log_append($1, $2, 'k', $3::text::json)", P, kind, entries)
        bounds: dict[str, Any] = {"max_age": timedelta(days=1), "max_count": 3}
        await tx.run(retentions.Set(project=P, subject="log", kind=kind, **bounds))


async def some_projects(tx: Transaction) -> None:
    for name in ("a", "a-b", "a_b", "z", "0"):
        await tx.run(projects.Create(project=name))


async def some_sessions(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for name in ("a", "Z", "a b", "é", "a/b"):  # all at one instant
        await tx.run(sessions.Create(project=P, session=name))
    await tx.set_clock(timedelta(hours=1))
    await tx.run(sessions.Create(project=P, session="last"))


async def some_memories(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for lesson in ("a", "Z", "a b", "é", "a/b"):  # all at one instant
        await tx.run(memories.Record(project=P, lesson=f"{lesson} common"))
    await tx.set_clock(timedelta(hours=1))
    await tx.run(memories.Record(project=P, lesson="common common", confidence=80))


async def some_knowledge(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for key in ("a", "Z", "a b", "é", "a/b"):
        await tx.run(knowledge.Put(project=P, key=key, content="common"))
    await tx.set_clock(timedelta(hours=1))
    await tx.run(knowledge.Put(project=P, key="last", content="common common"))


async def some_tokens(tx: Transaction) -> None:
    for _ in range(5):
        secret = new_secret()
        await tx.run(tokens.Create(name="same", role="reader", hash=secret.hash, prefix=secret.prefix))


async def some_users(tx: Transaction) -> None:
    for name in ("a", "0", "a.b", "a-b", "a_b"):
        await tx.run(users.Create(username=name))


async def some_queues(tx: Transaction) -> None:
    for name in ("a", "Z", "a b", "é", "mail", "mail/bulk"):
        await tx.run(queues.Set(project=P, queue=name))


async def some_documents(tx: Transaction) -> None:
    for kind, key in (
        ("b", "x"),
        ("a", "y"),
        ("a", "x"),
        ("a", "é"),
        ("c", "x"),
        ("a", "x"),
        ("a", "x"),
        ("a", "x"),
        ("a", "x"),
    ):
        await tx.run(documents.Put(project=P, kind=kind, key=key, value=Raw(b"1")))


async def some_limits(tx: Transaction) -> None:
    for name in ("a", "Z", "a b", "é", "mail", "mail/bulk"):
        await tx.run(limits.Set(project=P, name=name, slots=1))


async def some_directives(tx: Transaction) -> None:
    for name in ("a", "b", "c"):
        await agent(tx, name, "r")
    for priority in (0, 5, 0, -100, 5, 100, 0):
        await tx.run(directives.Send(project=P, body="x", everyone=True, priority=priority))


async def some_locks(tx: Transaction) -> None:
    holders = [(await agent(tx, "same")).id for _ in range(5)]

    async def lock(holder: UUID, *resources: str, **options: Any) -> None:
        await tx.run(locks.Acquire(project=P, resources=list(resources), agent=holder, **options))

    for holder in holders:
        await lock(holder, "src/shared.py", shared=True)
        await lock(holder, "name:gpu", slots=9)
    await lock(holders[0], "src/a.py", "src/z/", "src/*.md")
    for holder in holders[1:]:  # two resources, one ticket
        await lock(holder, "src/a.py", "src/z/q.py", wait=timedelta(minutes=1))
    await lock((await agent(tx, "late")).id, "src/z/q.py", wait=timedelta(minutes=1))


async def some_jobs(tx: Transaction) -> None:
    for name in ("same", "same", "z"):
        await tx.run(agents.Register(project=P, name=name, job_types=["t"]))
    agent = (await tx.run(agents.Register(project=P, name="last", job_types=["t", "u", "v"]))).id
    for kind in ("t", "t", "u", "t", "u", "v"):
        await tx.run(jobs.Enqueue(project=P, type=kind, queue=f"of {kind}"))
    for grant in await tx.run(jobs.Claim(project=P, agent=agent, limit=6)):
        await tx.run(jobs.Complete(project=P, job=grant.id, agent=agent, fence=grant.fence))


async def some_jobs_of_a_day_without_a_partition(tx: Transaction) -> None:
    await tx.set_clock(timedelta(days=100))
    await some_jobs(tx)


async def some_logs(tx: Transaction) -> None:
    for kind, key in (
        ("note", "a"),
        ("note", "a/b"),
        ("note", "a/c"),
        ("note", "aa"),
        ("note", "Z"),
        ("note", "é"),
        ("other", "a"),
        ("a-b", "z"),
    ):
        await tx.run(logs.Append(project=P, kind=kind, key=key, entries=JsonText(b'[{"data": 1}, {"data": 2}]')))


async def a_log(tx: Transaction) -> None:
    for _ in range(3):
        await some_logs(tx)


async def some_crons(tx: Transaction) -> None:
    for name in ("a", "Z", "a b", "é", "mail", "mail/bulk"):
        await tx.run(crons.Set(project=P, cron=name, schedule="@daily", job={"type": "t"}))


async def a_job(tx: Transaction, job: UUID) -> UUID:
    """Enqueue a job with this id; return a worker."""
    await tx.run(jobs.Enqueue(project=P, type="t"))
    await tx.connection.execute("update coordinator.jobs_open set id = $1", job)
    await tx.connection.execute("update coordinator.jobs_ready set id = $1", job)
    return (await tx.run(agents.Register(project=P, name="a", job_types=["t"]))).id


async def a_job_with_children(tx: Transaction, job: UUID) -> None:
    await a_job(tx, job)
    for _ in range(5):
        await tx.run(jobs.Enqueue(project=P, type="t", parent=job))


async def a_job_with_steps_and_output(tx: Transaction, job: UUID) -> None:
    agent = await a_job(tx, job)
    (grant,) = await tx.run(jobs.Claim(project=P, agent=agent))
    for number in range(1, 6):
        attempt = {"project": P, "job": job, "agent": agent, "fence": grant.fence}
        await tx.run(job_waits.FinishStep(**attempt, step="s", ordinal=number))
        await tx.run(jobs.Write(**attempt, chunks=[number]))


async def some_questions(tx: Transaction) -> None:
    agent = (await tx.run(agents.Register(project=P, name="a", job_types=["t"]))).id
    for _ in range(5):
        await tx.run(jobs.Enqueue(project=P, type="t"))
        (grant,) = await tx.run(jobs.Claim(project=P, agent=agent))
        attempt = {"project": P, "job": grant.id, "agent": agent, "fence": grant.fence}
        await tx.run(job_waits.Ask(**attempt, step="s", question="?"))


async def an_attempted_job(tx: Transaction, job: UUID) -> None:
    agent = await a_job(tx, job)
    for _ in range(5):
        (grant,) = await tx.run(jobs.Claim(project=P, agent=agent))
        await tx.run(jobs.Release(project=P, job=grant.id, agent=agent, fence=grant.fence))


async def some_artifacts(tx: Transaction) -> None:
    for name, session in (("a", None), ("a", "s"), ("a", "t"), ("b", None), ("é", "s"), ("é", None)):
        await tx.run(artifacts.Put(project=P, artifact=name, session=session, data=b"x"))


class Case(NamedTuple):
    fill: Callable[[Transaction], Awaitable[None]]
    operation: Operation[Any]
    least: int


CASES = [
    Case(some_signals, signals.List(project=P), 7),
    Case(some_artifacts, artifacts.List(project=P), 6),
    Case(some_artifacts, artifacts.List(project=P, prefix="a"), 3),
    Case(some_signals, signals.List(project=P, prefix="a/"), 4),
    Case(some_agents, agents.List(project=P), 7),
    Case(some_rules, rules.List(project=P), 5),
    Case(some_projects, projects.List(), 6),
    Case(some_sessions, sessions.List(project=P), 6),
    Case(some_sessions, sessions.List(project=P, status="active"), 6),
    Case(some_users, users.List(), 5),
    Case(some_memories, memories.List(project=P), 6),
    Case(some_memories, memories.Search(project=P, words="common"), 6),
    Case(some_knowledge, knowledge.List(project=P), 6),
    Case(some_knowledge, knowledge.Search(project=P, words="common"), 6),
    Case(some_tokens, tokens.List(), 5),
    Case(some_queues, queues.List(project=P), 6),
    Case(some_limits, limits.List(project=P), 6),
    Case(some_documents, documents.List(project=P), 5),
    Case(some_documents, documents.List(project=P, kind="a"), 3),
    Case(some_documents, documents.History(project=P, kind="a", key="x"), 5),
    Case(some_directives, directives.List(project=P), 7),
    Case(some_directives, directives.Inbox(project=P, agent="a"), 7),
    Case(some_directives, directives.ListPending(project=P), 21),
    Case(some_locks, locks.List(project=P), 13),
    Case(some_locks, locks.List(project=P, under="src"), 8),
    Case(some_locks, locks.ListWaiting(project=P, resource="src/"), 9),
    Case(some_jobs, job_history.List(project=P), 6),
    Case(some_jobs, job_history.List(project=P, type="t"), 3),
    Case(some_jobs, job_history.Stats(project=P), 3),
    Case(some_jobs, job_history.Stats(project=P, hourly=True), 3),
    Case(
        some_jobs_of_a_day_without_a_partition,
        job_history.ListArchive(relation="jobs_completed_default", until=datetime(2100, 1, 1, tzinfo=UTC)),
        6,
    ),
    Case(some_jobs, job_history.ListWorkers(project=P), 4),
    Case(partial(an_attempted_job, job=JOB), job_history.Attempts(project=P, job=JOB), 5),
    Case(partial(a_job_with_children, job=JOB), job_trees.Tree(project=P, job=JOB), 6),
    Case(partial(a_job_with_steps_and_output, job=JOB), job_history.ListSteps(project=P, job=JOB), 5),
    Case(partial(a_job_with_steps_and_output, job=JOB), job_history.ReadOutput(project=P, job=JOB), 5),
    Case(some_questions, job_waits.ListQuestions(project=P), 5),
    Case(some_logs, logs.List(project=P), 8),
    Case(some_logs, logs.List(project=P, kind="note", prefix="a"), 4),
    Case(a_log, logs.Read(project=P, kind="note", key="a"), 6),
    Case(a_log, logs.Read(project=P, kind="note", key="a", last=5), 5),
    Case(some_crons, crons.List(project=P), 6),
    Case(some_signals, transfers.Export(project=P), 9),
    Case(some_retention, retentions.Show(project=P), 9),
    Case(some_beyond_retention, retentions.Preview(project=P), 6),
]
LISTS = {type(case.operation): case for case in reversed(CASES)}

# Of these the answer has as many rows as the question, or a cursor in each row; or it is a single thing with its holders.
NO_LISTS = {"cron_preview", "lock_check", "events_since", "lock_show", "message_window"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operation.function)
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
async def test_pages_together_are_the_whole(tx: Transaction, case: Case, limit: int) -> None:
    await case.fill(tx)
    whole = await tx.run(case.operation)
    assert len(whole) >= case.least
    pages = [page async for page in walk(tx.run, replace(case.operation, limit=limit))]
    assert [row for page in pages for row in page] == whole
    assert {len(page) for page in pages[:-1]} <= {limit}
    assert [page.cursor is None for page in pages] == [False] * (len(pages) - 1) + [True]
    assert len({page.cursor for page in pages}) == len(pages)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operation.function)
async def test_max_rows_ends_a_walk_with_a_cursor_to_continue_from(tx: Transaction, case: Case) -> None:
    await case.fill(tx)
    pages = [page async for page in walk(tx.run, replace(case.operation, limit=2), max_rows=3)]
    assert [len(page) for page in pages] == [2, 1]
    assert pages[-1].cursor is not None


@pytest.mark.parametrize("case", LISTS.values(), ids=lambda case: case.operation.function)
async def test_what_is_no_place_in_a_list_is_refused_with_a_hint(tx: Transaction, case: Case) -> None:
    await case.fill(tx)
    row = (await tx.run(case.operation))[0]
    values = [getattr(row, name) for name in case.operation.page_by]
    place = ["" if value is None else str(value) for value in values]
    await tx.run(replace(case.operation, after=place))
    wrong: list[list[str | None]] = [[], place[1:], [*place, "1"], [None, *place[1:]]]
    wrong += [
        [*place[:index], bad, *place[index + 1 :]]
        for index, value in enumerate(values)
        if isinstance(value, int | UUID)
        for bad in ("", "x", "1.5", "9" * 19, "1\n", None)
    ]
    for after in wrong:
        with pytest.raises(InvalidArgument) as raised:
            await tx.run(replace(case.operation, after=after))
        assert (raised.value.code, bool(raised.value.hint)) == ("ZC103", True), after
    with pytest.raises(InvalidArgument):
        await tx.run(replace(case.operation, limit=0))


async def test_what_comes_and_goes_between_two_pages_moves_nothing_over_the_border(tx: Transaction) -> None:
    await some_signals(tx)
    seen = []
    async for page in walk(tx.run, signals.List(project=P, limit=2)):
        seen += [signal.key for signal in page]
        if len(seen) == 2:
            await tx.run(signals.Delete(project=P, key="a"))
            await tx.run(signals.Set(project=P, key="a/0", value=1))
            await tx.run(signals.Set(project=P, key="a/3", value=1))
    assert seen == ["a", "a/1", "a/10", "a/2", "a/3", "a/é", "b", "\U0001f600"]


async def test_a_holder_that_renews_between_two_pages_stays_where_it_is(tx: Transaction) -> None:
    await some_locks(tx)
    whole = [lock.fencing_token for lock in await tx.run(locks.List(project=P))]
    seen: list[int] = []
    async for page in walk(tx.run, locks.List(project=P, limit=1)):
        seen += [lock.fencing_token for lock in page]
        for lock in page:
            await tx.run(
                locks.Renew(project=P, resources=[lock.resource], agent=lock.agent_id, tokens=[lock.fencing_token])
            )
    assert seen == whole


def test_every_list_comes_in_pages_and_is_under_test() -> None:
    """Whatever answers a question with rows; what answers a change has as many rows as were to be changed."""
    lists = {kind for kind in OPERATIONS if kind.reads and not kind.internal and kind.answer()[0].name == "MANY"}
    assert {kind.function for kind in lists if not kind.page_by} == NO_LISTS
    assert {kind for kind in OPERATIONS if kind.page_by} == set(LISTS)
    for kind in LISTS:
        assert kind.__struct_fields__[-2:] == ("after", "limit"), kind.function
