"""Commands of a worker about jobs: claim them, report, and end them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import click

from coordinator.cli.command import acting_agent
from coordinator.cli.commands.job.noun import command, of_attempt, show_outcome
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.cli.values import DURATION, ID, INSTANT, INTEGER, NUMBER, read_json, read_text
from coordinator.model.agent_ref import AgentRef
from coordinator.model.operation import Json
from coordinator.operations import jobs

GRANT = (
    "id", "fence", "type", "attempt", "key", "payload", "checkpoint", "deadline_at", "queue", "stale", "steps",
    "tokens",
)  # fmt: skip


@command.verb(
    examples=[
        'coordinator job claim --agent "$id"',
        'coordinator job claim --agent "$id" --limit 10 --type build --queue builds --wait 10m',
        'read -r job fence < <(coordinator job claim --agent "$id" --short)',
    ]
)
@acting_agent(help="Worker: an agent with job types.")
@click.option("--limit", type=INTEGER, default=1, show_default=True, metavar="N", help="Maximum number of jobs.")
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Claim only from this queue; repeatable.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Claim only jobs of this type; repeatable.")
@click.option("--wait", type=DURATION, help="Wait at most this long for a job, then exit with 8.  [default: no wait]")
@click.option("--request-id", type=ID, metavar="UUID", help="Id of the request; a repetition gets the same jobs.")
@click.option("--short", is_flag=True, help="Print only the id and fence, one line per job.")
@click.pass_obj
def claim(
    call: Invocation,
    /,
    *,
    queues: tuple[str, ...],
    types: tuple[str, ...],
    wait: timedelta | None,
    short: bool,
    **options: Any,
) -> None:
    """Claim jobs for a worker, the best ones first.

    Claims only jobs that match the worker's job types and labels; there may be none. Each claimed job has a fence, which later calls need.
    """
    operation = call.operation(jobs.Claim, queues=list(queues) or None, types=list(types) or None, **options)
    grants = call.run(operation) if wait is None else call.until_answered(operation, wait.total_seconds())
    if short:
        for grant in grants:
            call.output.line(f"{grant.id} {grant.fence}")
        return
    call.output.many(grants, GRANT, empty="There is no job to claim.")


@command.verb(examples=['coordinator job complete "$id" --agent w --fence 42 \'{"words": 812}\''])
@of_attempt
@click.argument("result", metavar="[JSON]", default="null")
@click.pass_obj
def complete(call: Invocation, *, job: UUID, agent: AgentRef, fence: int, result: str) -> None:
    """Complete a job. JSON is its result; - reads standard input.

    Exit code 4: the worker no longer has the job; the message says who has it, or how it ended.
    """
    value = read_json(read_text(result), "JSON")
    show_outcome(call, call.run(call.operation(jobs.Complete, job=job, agent=agent, fence=fence, result=value)))


@command.verb(
    examples=[
        'coordinator job fail "$id" --agent w --fence 42 "no space left" --retry-at 10m',
        'coordinator job fail "$id" --agent w --fence 42 "no such page" --final',
    ]
)
@of_attempt
@click.argument("error", metavar="TEXT")
@click.option("--final", is_flag=True, help="Do not retry it.")
@click.option(
    "--retry-at", type=INSTANT, metavar="TIME", help="Retry it at this time, or 10m from now.  [default: back-off]"
)
@click.pass_obj
def fail(call: Invocation, /, **options: Any) -> None:
    """End an attempt with an error. The job is retried, unless this was its last attempt."""
    show_outcome(call, call.run(call.operation(jobs.Fail, **options)))


@command.verb(
    examples=['coordinator job progress "$id" --agent w --fence 42 --percent 50 --checkpoint \'{"page": 3}\'']
)
@of_attempt
@click.option("--percent", type=NUMBER, metavar="N", help="0 to 100.")
@click.option("--message", metavar="TEXT", help="Progress in words.")
@click.option(
    "--checkpoint", metavar="JSON", help="Data from which the next attempt can continue; - reads standard input."
)
@click.pass_obj
def progress(call: Invocation, /, *, checkpoint: str | None, **options: Any) -> None:
    """Report the progress of a job. The response says whether the worker must stop."""
    value: Json = None if checkpoint is None else read_json(read_text(checkpoint), "--checkpoint")
    lease = call.run(call.operation(jobs.Report, checkpoint=value, **options))
    text = f"the worker may have it until {lease.deadline_at:%Y-%m-%d %H:%M:%S}Z"
    if lease.cancel_at is not None:
        text = f"a cancellation was requested: stop within {age(lease.cancel_at).removeprefix('in ')}"
    call.output.one(lease, text)


@command.verb(
    examples=[
        'coordinator job write "$id" "The answer is " --agent w --fence 42',
        'coordinator job write "$id" --chunk \'{"rows": 17}\' --agent w --fence 42',
        'model | coordinator job write "$id" - --agent w --fence 42',
    ]
)
@of_attempt
@click.argument("text", required=False)
@click.option("--chunk", "chunks", multiple=True, metavar="JSON", help="Write a JSON value; repeatable.")
@click.option("--seq", type=INTEGER, metavar="N", help="Number of the first chunk, so that the call can be repeated.")
@click.pass_obj
def write(call: Invocation, /, *, text: str | None, chunks: tuple[str, ...], **options: Any) -> None:
    """Append TEXT or JSON values to the output of a job. - reads standard input."""
    if (text is None) == (not chunks):
        raise click.UsageError("give TEXT or --chunk")
    values = [read_json(chunk, "--chunk") for chunk in chunks] if text is None else [read_text(text)]
    last = call.run(call.operation(jobs.Write, chunks=values, **options))
    call.output.one({"last": last}, f"chunk {last}")


@command.verb(examples=['coordinator job spend "$id" dollars 1250 --agent w --fence 42     # 1250 more'])
@of_attempt
@click.argument("budget")
@click.argument("amount", type=INTEGER)
@click.pass_obj
def spend(call: Invocation, /, **options: Any) -> None:
    """Report what a job has spent of a budget. The response says whether the worker must stop.

    The end of the attempt charges the sum of the reports, or the reserved amount if there were none.
    """
    charge = call.run(call.operation(jobs.Spend, **options))
    text = f"it has spent {charge.spent} of {plain(charge.budget)}, and {charge.free} is left for other jobs"
    if charge.cancel_at is not None:
        text += f"; a cancellation was requested: stop within {age(charge.cancel_at).removeprefix('in ')}"
    call.output.one(charge, text)


@command.verb(examples=['coordinator job snooze "$id" 10m --agent w --fence 42'])
@of_attempt
@click.argument("delay", type=DURATION, metavar="DURATION")
@click.pass_obj
def snooze(call: Invocation, /, **options: Any) -> None:
    """Postpone a job, and keep its checkpoint. This does not use up an attempt."""
    show_outcome(call, call.run(call.operation(jobs.Snooze, **options)))


@command.verb(examples=['coordinator job release "$id" --agent w --fence 42'])
@of_attempt
@click.pass_obj
def release(call: Invocation, /, **options: Any) -> None:
    """Return a job to its place in the queue. This does not use up an attempt."""
    show_outcome(call, call.run(call.operation(jobs.Release, **options)))


@command.verb(examples=['coordinator job reconcile --agent "$id" --fence 42 --fence 43'])
@acting_agent(help="Worker.")
@click.option(
    "--fence", "fences", type=INTEGER, multiple=True, metavar="N", help="Fence of a job that it has; repeatable."
)
@click.option(
    "--grace", type=DURATION, default="10s", show_default=True, help="Time allowed for the response to a claim."
)
@click.pass_obj
def reconcile(call: Invocation, /, **options: Any) -> None:
    """Compare the jobs of a worker with the jobs that it knows.

    Print a row for each fence that needs attention. lost: the worker no longer has the job. cancel: a cancellation was requested.
    released: the worker did not know that it had the job.
    """
    verdicts = call.run(call.operation(jobs.Reconcile, **options))
    call.output.many(verdicts, ("fence", "verdict", "id"), empty="Everything is as the worker says.")
