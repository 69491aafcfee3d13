"""``coordinator worker``."""

from __future__ import annotations

from datetime import timedelta

import click

from coordinator.cli.command import log_settings, noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import DURATION, INTEGER
from coordinator.operations import job_history

command = noun("Workers: agents that run jobs.")


@command.verb(examples=["coordinator worker list", "coordinator worker list --type summarize"])
@click.option("--type", metavar="TYPE", help="List only workers that run jobs of this type.")
@paged
@click.pass_obj
def list_(call: Invocation, *, type: str | None, after: str | None, limit: int | None) -> None:
    """List workers, by name: agents with job types."""
    call.list(
        job_history.ListWorkers(project=call.project, type=type),
        (
            "name",
            "status",
            "running",
            "current_job",
            "last_seen",
            "job_types",
            "labels",
            "id",
            "registered_at",
            "metadata",
        ),
        after=after,
        limit=limit,
        empty="No workers are registered.",
    )


@command.verb(
    examples=[
        "coordinator worker run tasks:worker",
        "coordinator worker run shop.tasks:worker --concurrency 50 --queue orders --queue returns",
        "coordinator worker run tasks:worker --url https://coordinator.agents:7420 --log-level warning",
    ],
    settings=log_settings(),
)
@click.argument("place", metavar="MODULE:WORKER")
@click.option(
    "-c", "--concurrency", type=INTEGER, metavar="N", help="Run at most N jobs at once.  [default: the worker's, or 10]"
)
@click.option("-q", "--queue", "queues", multiple=True, metavar="NAME", help="Claim only from this queue; repeatable.")
@click.option(
    "--label", "labels", multiple=True, metavar="LABEL", help="Accept jobs that require this label; repeatable."
)
@click.option("--agent", metavar="NAME", help="Name of its agent.  [default: from the host and the process]")
@click.option("--ttl", type=DURATION, help="Time without a heartbeat after which its jobs are rescued.  [default: 30s]")
@click.option("--grace", type=DURATION, help="Time for jobs to finish when it stops.  [default: 10s]")
@click.pass_obj
def run(
    call: Invocation,
    *,
    place: str,
    concurrency: int | None,
    queues: tuple[str, ...],
    labels: tuple[str, ...],
    agent: str | None,
    ttl: timedelta | None,
    grace: timedelta | None,
) -> None:
    """Run jobs with the functions of a Python worker.

    The command imports MODULE, also from the current directory. WORKER is the name of a coordinator.Worker in it; omit it if there is
    only one. Log lines show which jobs started, completed and failed.

    The first SIGTERM or Ctrl-C shuts it down: it claims no more jobs, lets running jobs finish within --grace, and releases the rest. A
    second one stops it at once. Exit code 1: a job ignored its cancellation.
    """
    from coordinator.cli import worker_run  # noqa: PLC0415

    worker_run.run(
        call,
        worker_run.find(place),
        concurrency=concurrency,
        queues=queues,
        labels=labels,
        agent=agent,
        ttl=ttl,
        grace=grace,
    )
