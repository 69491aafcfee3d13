"""``coordinator job``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import click
from click.exceptions import Exit

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import DURATION, ID, INTEGER, read_json
from coordinator.operations import job_history

command = noun("Jobs: work that waits in queues and is done by workers.")

COLUMNS = (
    "id", "type", "status", "queue", "key", "attempts", "worker", "created_at", "completed_at", "reason", "error", "payload",
    "result", "priority", "labels", "scheduled_at", "started_at", "percent", "message", "actor",
)  # fmt: skip

_status = click.option("--status", multiple=True, metavar="STATUS", help="Only of this status; repeatable.")
_type = click.option("--type", metavar="TYPE", help="Only of this type.")
_queue = click.option("--queue", metavar="QUEUE", help="Only of this queue.")
_key = click.option("--key", metavar="KEY", help="Only with this key.")


@command.verb(
    examples=[
        "coordinator job list --status failed",
        "coordinator job list --type summarize --payload '{\"user\": 7}'",
        "coordinator job list --worker coder-1 --status running",
        "coordinator job list --words 'timeout report' --limit 20",
    ]
)
@_status
@_type
@_queue
@_key
@click.option("--worker", metavar="NAME|ID", help="Only those that this worker runs, or ran last.")
@click.option(
    "--label", "labels", multiple=True, metavar="LABEL", help="Only those that require this label; repeatable."
)
@click.option("--payload", metavar="JSON", help="Only those whose payload contains this.")
@click.option("--words", metavar="TEXT", help="Only those with all these words in type, key, error or payload.")
@paged
@click.pass_obj
def list_(call: Invocation, /, *, payload: str | None, after: str | None, limit: int | None, **options: Any) -> None:
    """List jobs, newest first. Those that ended are listed while they are retained."""
    given = {name: [*value] if isinstance(value, tuple) else value for name, value in options.items() if value}
    if payload is not None:
        given["payload"] = read_json(payload, "--payload")
    call.list(
        call.operation(job_history.List, **given),
        COLUMNS,
        after=after,
        limit=limit,
        empty="There are no such jobs.",
    )


@command.verb(
    examples=[
        "coordinator job show 01a2155e-ba17-77e3-ac99-d90c691a84ae",
        "coordinator job show 01a2155e-ba17-77e3-ac99-d90c691a84ae -o json | jq .result",
    ]
)
@click.argument("job", type=ID)
@click.pass_obj
def show(call: Invocation, *, job: UUID) -> None:
    """Show a job: its state, payload, result and error."""
    call.output.one(call.run(job_history.Show(project=call.project, job=job)))


@command.verb(examples=["coordinator job attempts 01a2155e-ba17-77e3-ac99-d90c691a84ae"])
@click.argument("job", type=ID)
@paged
@click.pass_obj
def attempts(call: Invocation, *, job: UUID, after: str | None, limit: int | None) -> None:
    """List the attempts of a job, oldest first. Of those that ended, the last 50 are kept."""
    call.list(
        job_history.Attempts(project=call.project, job=job),
        ("attempt", "outcome", "worker", "started_at", "ended_at", "error", "fence", "worker_id"),
        after=after,
        limit=limit,
        empty="It has not been started.",
    )


@command.verb(examples=["coordinator job why 01a2155e-ba17-77e3-ac99-d90c691a84ae"])
@click.argument("job", type=ID)
@click.pass_obj
def why(call: Invocation, *, job: UUID) -> None:
    """Say in one sentence why a job waits, or what became of it."""
    found = call.run(job_history.Why(project=call.project, job=job))
    call.output.one(found, plain(found.sentence))


@command.verb(
    examples=[
        "coordinator job wait 01a2155e-ba17-77e3-ac99-d90c691a84ae --timeout 10m",
        "coordinator job wait 01a2155e-ba17-77e3-ac99-d90c691a84ae -o json | jq .result",
    ]
)
@click.argument("job", type=ID)
@click.option("--timeout", type=DURATION, help="End after this long, with exit code 8.")
@click.pass_obj
def wait(call: Invocation, *, job: UUID, timeout: timedelta | None) -> None:
    """Wait for the end of a job, and show it. The exit code is 4 if it did not complete."""
    read = job_history.Show(project=call.project, job=job)
    found = call.until_answered(read, None if timeout is None else timeout.total_seconds())
    call.output.one(found)
    if found.status != "completed":
        raise Exit(4)


@command.verb(
    examples=[
        "coordinator job retry 01a2155e-ba17-77e3-ac99-d90c691a84ae",
        "coordinator job retry --status failed --type summarize",
        "coordinator job retry --reason worker_lost --limit 10",
    ]
)
@click.argument("job", type=ID, required=False)
@_status
@click.option("--reason", metavar="REASON", help="Only of this reason, such as worker_lost.")
@_type
@_queue
@_key
@click.option("--limit", type=INTEGER, default=1000, show_default=True, metavar="N", help="At most this many.")
@click.pass_obj
def retry(call: Invocation, /, *, job: UUID | None, status: tuple[str, ...], **options: Any) -> None:
    """Enqueue JOB again, or all that meet the conditions.

    Each is retried once. Prints the ids of the new jobs.
    """
    made = call.run(call.operation(job_history.Retry, job=job, status=[*status] or None, **options))
    call.output.many(made, ("id", "retry_of", "type", "queue", "status", "created"), empty="There is nothing to retry.")


@command.verb(
    examples=[
        "coordinator job stats",
        "coordinator job stats --queue default --period 6h --hourly",
    ]
)
@_queue
@_type
@click.option("--period", type=DURATION, default="1d", show_default=True, help="Count what ended in this time.")
@click.option("--hourly", is_flag=True, help="Count by the hour of the end.")
@paged
@click.pass_obj
def stats(call: Invocation, /, *, after: str | None, limit: int | None, **options: Any) -> None:
    """Count jobs by queue and type.

    Counts those that wait and run now, and those that ended, with the median and the 95th percentile of how long they waited
    and ran, in seconds.
    """
    hourly = options["hourly"]
    now = () if hourly else ("queued", "scheduled", "running")
    call.list(
        call.operation(job_history.Stats, **options),
        (
            "queue", "type", *(("hour",) if hourly else ()), *now, "completed", "failed", "cancelled", "expired",
            "wait_p50_s", "wait_p95_s", "run_p50_s", "run_p95_s",
        ),
        after=after,
        limit=limit,
        empty="There are no jobs.",
    )  # fmt: skip
