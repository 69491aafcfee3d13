"""``coordinator worker``."""

from __future__ import annotations

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
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
