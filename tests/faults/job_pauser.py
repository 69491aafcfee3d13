"""A worker that claims jobs and is stopped at that very moment, before it does anything with them.

As a program: `python -m tests.faults.job_pauser <URL of a database, a daemon or a sidecar>`; after SIGCONT it tries every verb, each with
a job of its own, and prints the code of each answer as JSON.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta
from uuid import UUID

import anyio
import msgspec

from coordinator.client.http import HttpExecutor
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.errors import CoordinatorError
from coordinator.model.operation import Operation
from coordinator.operations import agents, jobs, transactions

__all__ = ["JOBS"]

JOBS = 7
EACH = timedelta(hours=1)


def verbs(agent: UUID, held: list[tuple[UUID, int]]) -> dict[str, Operation[object]]:
    """Return what a worker can do with jobs that it has."""
    mine = [{"project": "default", "job": job, "agent": agent, "fence": fence} for job, fence in held]
    ids, fences = [job for job, _ in held], [fence for _, fence in held]
    return {
        "complete": jobs.Complete(**mine[0], result="mine"),
        "fail": jobs.Fail(**mine[1], error="it failed"),
        "fail for good": jobs.Fail(**mine[2], error="it failed", final=True),
        "progress": jobs.Report(**mine[3], percent=50, checkpoint=1),
        "snooze": jobs.Snooze(**mine[4], delay=EACH),
        "release": jobs.Release(**mine[5]),
        "assert": transactions.Run(
            project="default",
            writes=[{"verb": "signal_set", "key": "k", "value": 1}],
            conditions=[{"verb": "assert_job", "job": str(ids[6]), "fence": fences[6]}],
        ),
        "claim": jobs.Claim(
            project="default", agent=agent, limit=0, finished=ids, fences=fences, results=["mine"] * JOBS
        ),
        "reconcile": jobs.Reconcile(project="default", agent=agent, fences=fences),
    }


async def main(url: str) -> None:
    executor = HttpExecutor if url.startswith("http") else Database
    async with executor.open(url, Config(min_connections=1)) as way:
        agent = await way.run(agents.Register(project="default", name="pauser", job_types=["work"], ttl=EACH))
        grants = await way.run(jobs.Claim(project="default", agent=agent.id, limit=JOBS))
        assert len(grants) == JOBS
        os.kill(os.getpid(), signal.SIGSTOP)
        codes = {}
        for name, operation in verbs(agent.id, [(grant.id, grant.fence) for grant in grants]).items():
            try:
                await way.run(operation)
                codes[name] = "done"
            except CoordinatorError as error:
                codes[name] = error.code
    sys.stdout.write(msgspec.json.encode(codes).decode() + "\n")


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
