"""``coordinator queue``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import DURATION, INTEGER, WEIGHT
from coordinator.operations import queues

command = noun("Queues: how jobs are claimed, and how many may wait.")

COLUMNS = (
    "queue", "queued_count", "running_count", "paused_at", "fair_by", "ageing", "max_waiting", "max_waiting_per_key",
    "weights", "unplaced_count", "pause_reason", "paused_by", "events", "updated_at",
)  # fmt: skip


@command.verb(
    name="set",
    examples=[
        "coordinator queue set mail --ageing 1m     # a minute of waiting is worth one step of priority",
        "coordinator queue set builds --fair-by key --weight acme=3 --max-waiting-per-key 1000",
        "coordinator queue set builds --fair-by none --strict --max-waiting 0",
    ],
)
@click.argument("queue")
@click.option("--fair-by", metavar="key|none", help="Let the keys of jobs take turns, or not.")
@click.option("--ageing", type=DURATION, help="Waiting time that raises a job's priority by one; 0s: strict priority.")
@click.option("--strict", is_flag=True, help="Claim by strict priority, as --ageing 0s does.")
@click.option(
    "--weight", "weights", type=WEIGHT, multiple=True, metavar="KEY=N", help="Shares of a key, 1 to 1000; repeatable."
)
@click.option("--max-waiting", type=INTEGER, metavar="N", help="Maximum number of waiting jobs; 0: no limit.")
@click.option(
    "--max-waiting-per-key",
    type=INTEGER,
    metavar="N",
    help="Maximum number of waiting jobs with the same key; 0: no limit.",
)
@click.option("--events", metavar="call|job", help="Emit one event per call, or one per job.")
@click.pass_obj
def set_(
    call: Invocation, /, *, ageing: timedelta | None, strict: bool, weights: tuple[tuple[str, int], ...], **options: Any
) -> None:
    """Set the policy of a queue, and create it if it does not exist.

    Omitted options keep their values. The policy also applies to jobs that are already waiting.
    """
    if strict and ageing:
        raise click.UsageError("give --ageing or --strict, not both")
    ageing = timedelta(0) if strict else ageing
    call.output.one(call.run(call.operation(queues.Set, ageing=ageing, weights=dict(weights), **options)))


@command.verb(examples=["coordinator queue pause mail --reason 'The mail server is down'"])
@click.argument("queue")
@click.option("--reason", metavar="TEXT", help="Reason, shown to people who ask why nothing runs.")
@click.pass_obj
def pause(call: Invocation, *, queue: str, reason: str | None) -> None:
    """Pause a queue: workers cannot claim its jobs. Running jobs continue."""
    paused = call.run(call.operation(queues.Pause, queue=queue, reason=reason))
    call.output.one(paused, f"paused {plain(queue)}; {paused.running_count} of its jobs are running")


@command.verb(examples=["coordinator queue resume mail"])
@click.argument("queue")
@click.pass_obj
def resume(call: Invocation, *, queue: str) -> None:
    """Resume a paused queue."""
    call.output.one(call.run(call.operation(queues.Resume, queue=queue)), f"resumed {plain(queue)}")


@command.verb(examples=["coordinator queue delete mail"])
@click.argument("queue")
@click.pass_obj
def delete(call: Invocation, *, queue: str) -> None:
    """Delete a queue without open jobs, and its policy.

    Its ended jobs stay, and so do limits and crons that name it. The next job creates the queue again. Exit code 4: it has open jobs.
    """
    call.run(call.operation(queues.Delete, queue=queue))
    call.output.one({"queue": queue, "deleted": True}, f"deleted {plain(queue)}")


@command.verb(examples=["coordinator queue get mail"])
@click.argument("queue")
@click.pass_obj
def get(call: Invocation, *, queue: str) -> None:
    """Show the policy of a queue, and how many jobs are in it. Exit code 3: it does not exist."""
    call.output.one(call.run(queues.Get(project=call.project, queue=queue)))


@command.verb(examples=["coordinator queue list", "coordinator queue list | jq '.[] | select(.paused_at)'"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the queues, by name. At most 10,000 queued jobs of each are counted."""
    call.list(queues.List(project=call.project), COLUMNS, after=after, limit=limit, empty="There are no queues.")
