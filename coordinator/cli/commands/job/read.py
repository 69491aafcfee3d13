"""Show jobs, and what became of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import click
from click.exceptions import Exit

from coordinator.cli.command import paged
from coordinator.cli.commands.job.noun import (
    command,
    job_argument,
    key_option,
    queue_option,
    status_option,
    type_option,
)
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import DURATION, INTEGER, JOB, read_json
from coordinator.operations import job_history, job_trees

COLUMNS = (
    "id", "type", "status", "queue", "key", "attempts", "worker", "created_at", "completed_at", "reason", "error", "payload",
    "result", "priority", "labels", "locks", "scheduled_at", "started_at", "percent", "message", "actor",
)  # fmt: skip
STEP = ("place", "name", "ordinal", "kind", "result", "actor", "finished_at", "fence")


@command.verb(
    examples=[
        "coordinator job list --status failed",
        "coordinator job list --type summarize --payload '{\"user\": 7}'",
        "coordinator job list --worker coder-1 --status running",
        "coordinator job list --words 'timeout report' --limit 20",
    ]
)
@status_option
@type_option
@queue_option
@key_option
@click.option("--worker", metavar="NAME|ID", help="Only jobs that this worker runs, or ran last.")
@click.option(
    "--label", "labels", multiple=True, metavar="LABEL", help="Only those that require this label; repeatable."
)
@click.option("--payload", metavar="JSON", help="Only those whose payload contains this.")
@click.option("--words", metavar="TEXT", help="Only those with all these words in type, key, error or payload.")
@click.option("--parent", type=JOB, metavar="ID", help="Only children of this job.")
@click.option("--root", type=JOB, metavar="ID", help="Only jobs below this one, which has no parent.")
@paged
@click.pass_obj
def list_(call: Invocation, /, *, payload: str | None, after: str | None, limit: int | None, **options: Any) -> None:
    """List jobs, newest first, including retained ended jobs."""
    given = {
        name: [*value] if isinstance(value, tuple) else value
        for name, value in options.items()
        if value not in (None, ())
    }
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
        'coordinator job tree "$id"',
        'coordinator job tree "$id" -o json | jq -r ".[] | .id"',
    ]
)
@job_argument
@paged
@click.pass_obj
def tree(call: Invocation, /, *, job: UUID, after: str | None, limit: int | None) -> None:
    """List a job and all those below it.

    A parent comes before its children. Text output draws a tree.
    """
    listed = call.operation(job_trees.Tree, job=job)
    rows = call.read(listed, after=after, limit=limit)
    if call.output.json:
        call.output.many(rows, (), empty="")
        return
    from coordinator.cli.job_tree import branches  # noqa: PLC0415

    for line in branches(rows):
        call.output.line(line)
    call.more(rows)


@command.verb(
    examples=[
        "coordinator job show 01a2155e-ba17-77e3-ac99-d90c691a84ae",
        "coordinator job show 01a2155e-ba17-77e3-ac99-d90c691a84ae -o json | jq .result",
    ]
)
@job_argument
@click.pass_obj
def show(call: Invocation, *, job: UUID) -> None:
    """Show a job: its state, payload, result and error.

    Text output also shows what the job waits for, and its finished steps.
    """
    found = call.run(job_history.Show(project=call.project, job=job))
    call.output.one(found)
    if call.output.json:
        return
    if found.status == "waiting":
        call.output.line("\n" + plain(call.run(job_history.Why(project=call.project, job=job)).sentence))
    if finished := call.run(job_history.ListSteps(project=call.project, job=job)):
        call.output.line("")
        call.output.many(finished, STEP, empty="")


@command.verb(
    examples=[
        "coordinator job output 01a2155e-ba17-77e3-ac99-d90c691a84ae --follow",
        'coordinator job output "$id" --follow --after 17 -o json | jq .chunk',
    ]
)
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Print new output until the job ends.")
@click.option("--after", type=INTEGER, metavar="N", help="Start after this chunk.")
@click.pass_obj
def output(call: Invocation, *, job: UUID, follow: bool, after: int | None) -> None:
    """Print the output of a job.

    Strings are printed as they are, other values as JSON; with -o json, one line per chunk. --follow reconnects after a lost connection and misses nothing. Exit code 4: the job did not complete.
    """
    from coordinator.cli.job_output import print_output  # noqa: PLC0415

    status = print_output(
        call, job_history.ReadOutput(project=call.project, job=job, after=[str(after or 0)]), follow=follow
    )
    if status not in (None, "completed"):
        why = call.run(job_history.Why(project=call.project, job=job))
        call.output.note(plain(why.sentence))
        raise Exit(4)


@command.verb(
    examples=[
        "coordinator job steps 01a2155e-ba17-77e3-ac99-d90c691a84ae",
        'coordinator job steps "$id" -o json | jq \'.[] | select(.name == "fetch").result\'',
    ]
)
@job_argument
@paged
@click.pass_obj
def steps(call: Invocation, *, job: UUID, after: str | None, limit: int | None) -> None:
    """List the finished steps of a job, in their order."""
    call.list(
        job_history.ListSteps(project=call.project, job=job),
        STEP,
        after=after,
        limit=limit,
        empty="No step is finished.",
    )


@command.verb(examples=["coordinator job attempts 01a2155e-ba17-77e3-ac99-d90c691a84ae"])
@job_argument
@paged
@click.pass_obj
def attempts(call: Invocation, *, job: UUID, after: str | None, limit: int | None) -> None:
    """List the attempts of a job, oldest first. The last 50 ended attempts are kept."""
    call.list(
        job_history.Attempts(project=call.project, job=job),
        ("attempt", "outcome", "worker", "started_at", "ended_at", "error", "fence", "worker_id"),
        after=after,
        limit=limit,
        empty="It has not been started.",
    )


@command.verb(examples=["coordinator job why 01a2155e-ba17-77e3-ac99-d90c691a84ae"])
@job_argument
@click.pass_obj
def why(call: Invocation, *, job: UUID) -> None:
    """Say in one sentence why a job waits, or how it ended."""
    found = call.run(job_history.Why(project=call.project, job=job))
    call.output.one(found, plain(found.sentence))


@command.verb(
    examples=[
        "coordinator job wait 01a2155e-ba17-77e3-ac99-d90c691a84ae --timeout 10m",
        "coordinator job wait 01a2155e-ba17-77e3-ac99-d90c691a84ae -o json | jq .result",
    ]
)
@job_argument
@click.option("--timeout", type=DURATION, help="Stop after this long, with exit code 8.")
@click.pass_obj
def wait(call: Invocation, *, job: UUID, timeout: timedelta | None) -> None:
    """Wait until a job ends, and show it. Exit code 4: it did not complete."""
    read = job_history.Show(project=call.project, job=job)
    found = call.until_answered(read, None if timeout is None else timeout.total_seconds())
    call.output.one(found)
    if found.status != "completed":
        raise Exit(4)


@command.verb(
    examples=[
        "coordinator job stats",
        "coordinator job stats --queue default --period 6h --hourly",
    ]
)
@queue_option
@type_option
@click.option("--period", type=DURATION, default="1d", show_default=True, help="Count jobs that ended in this period.")
@click.option("--hourly", is_flag=True, help="Count by the hour in which jobs ended.")
@paged
@click.pass_obj
def stats(call: Invocation, /, *, after: str | None, limit: int | None, **options: Any) -> None:
    """Count jobs by queue and type.

    Counts waiting, running and ended jobs, with the median and the 95th percentile of their waiting and running times in seconds.
    """
    hourly = options["hourly"]
    now = () if hourly else ("queued", "scheduled", "waiting", "running")
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
