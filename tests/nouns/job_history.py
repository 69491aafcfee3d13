from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from coordinator.operations import agents, job_history, job_trees, job_waits, jobs
from tests.conftest import Transaction
from tests.nouns import Pages

JOB = UUID(int=7)

LIMITS = {
    "job_words": [
        "coordinator.job_list('default', p_words => repeat('a', $1::integer))",
    ],
    "job_period_max": [
        "coordinator.job_stats('default', p_period => make_interval(secs => $1))",
    ],
    "page": [
        "coordinator.job_list('default', p_limit => $1::integer)",
        "coordinator.job_stats('default', p_limit => $1::integer)",
        "coordinator.worker_list('default', p_limit => $1::integer)",
        "coordinator.job_retry('default', p_status => '{failed}', p_limit => $1::integer)",
        "coordinator.job_prune(p_limit => $1::integer)",
    ],
    "ttl_min": [
        "coordinator.job_stats('default', p_period => make_interval(secs => $1))",
        "coordinator.job_prune(p_completed => make_interval(secs => $1))",
        "coordinator.job_prune(p_other => make_interval(secs => $1))",
    ],
    "ttl_max": [
        "coordinator.job_prune(p_completed => make_interval(secs => $1))",
        "coordinator.job_prune(p_other => make_interval(secs => $1))",
    ],
}


async def some_jobs(tx: Transaction) -> None:
    for name in ("same", "same", "z"):
        await tx.run(agents.Register(project="default", name=name, job_types=["t"]))
    agent = (await tx.run(agents.Register(project="default", name="last", job_types=["t", "u", "v"]))).id
    for kind in ("t", "t", "u", "t", "u", "v"):
        await tx.run(jobs.Enqueue(project="default", type=kind, queue=f"of {kind}"))
    for grant in await tx.run(jobs.Claim(project="default", agent=agent, limit=6)):
        await tx.run(jobs.Complete(project="default", job=grant.id, agent=agent, fence=grant.fence))


async def some_jobs_of_a_day_without_a_partition(tx: Transaction) -> None:
    await tx.set_clock(timedelta(days=100))
    await some_jobs(tx)


async def a_job(tx: Transaction) -> UUID:
    """Enqueue the job; return a worker."""
    await tx.run(jobs.Enqueue(project="default", type="t"))
    await tx.connection.execute("update coordinator.jobs_open set id = $1", JOB)
    await tx.connection.execute("update coordinator.jobs_ready set id = $1", JOB)
    return (await tx.run(agents.Register(project="default", name="a", job_types=["t"]))).id


async def a_job_with_children(tx: Transaction) -> None:
    await a_job(tx)
    for _ in range(5):
        await tx.run(jobs.Enqueue(project="default", type="t", parent=JOB))


async def a_job_with_steps_and_output(tx: Transaction) -> None:
    agent = await a_job(tx)
    (grant,) = await tx.run(jobs.Claim(project="default", agent=agent))
    for number in range(1, 6):
        attempt = {"project": "default", "job": JOB, "agent": agent, "fence": grant.fence}
        await tx.run(job_waits.FinishStep(**attempt, step="s", ordinal=number))
        await tx.run(jobs.Write(**attempt, chunks=[number]))


async def some_questions(tx: Transaction) -> None:
    agent = (await tx.run(agents.Register(project="default", name="a", job_types=["t"]))).id
    for _ in range(5):
        await tx.run(jobs.Enqueue(project="default", type="t"))
        (grant,) = await tx.run(jobs.Claim(project="default", agent=agent))
        attempt = {"project": "default", "job": grant.id, "agent": agent, "fence": grant.fence}
        await tx.run(job_waits.Ask(**attempt, step="s", question="?"))


async def an_attempted_job(tx: Transaction) -> None:
    agent = await a_job(tx)
    for _ in range(5):
        (grant,) = await tx.run(jobs.Claim(project="default", agent=agent))
        await tx.run(jobs.Release(project="default", job=grant.id, agent=agent, fence=grant.fence))


PAGES = [
    Pages(some_jobs, job_history.List(project="default"), 6),
    Pages(some_jobs, job_history.List(project="default", type="t"), 3),
    Pages(some_jobs, job_history.Stats(project="default"), 3),
    Pages(some_jobs, job_history.Stats(project="default", hourly=True), 3),
    Pages(
        some_jobs_of_a_day_without_a_partition,
        job_history.ListArchive(relation="jobs_completed_default", until=datetime(2100, 1, 1, tzinfo=UTC)),
        6,
    ),
    Pages(some_jobs, job_history.ListWorkers(project="default"), 4),
    Pages(an_attempted_job, job_history.Attempts(project="default", job=JOB), 5),
    Pages(a_job_with_children, job_trees.Tree(project="default", job=JOB), 6),
    Pages(a_job_with_steps_and_output, job_history.ListSteps(project="default", job=JOB), 5),
    Pages(a_job_with_steps_and_output, job_history.ReadOutput(project="default", job=JOB), 5),
    Pages(some_questions, job_waits.ListQuestions(project="default"), 5),
]
