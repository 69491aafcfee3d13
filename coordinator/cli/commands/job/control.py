"""Commands of managers about jobs: cancel, pause, resume, retry."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from coordinator.cli.command import acting_agent
from coordinator.cli.commands.job.noun import (
    command,
    job_argument,
    key_option,
    queue_option,
    state_of,
    status_option,
    type_option,
)
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import counted
from coordinator.cli.values import INTEGER, JOB
from coordinator.model.agent_ref import AgentRef
from coordinator.model.job import JobCancellation, JobTreeOutcome
from coordinator.operations import job_history, job_trees, jobs


@command.verb(
    examples=[
        "coordinator job cancel \"$id\" --reason 'The page is gone'",
        'coordinator job cancel "$id" --tree',
        'coordinator job cancel "$id" --children --agent w --fence 42',
    ]
)
@job_argument
@click.option(
    "--tree",
    is_flag=True,
    help="Also cancel all jobs below it, even if the job itself has ended. After 1,000, a daemon cancels the rest.",
)
@click.option("--children", is_flag=True, help="Cancel only the jobs below it; its worker may do that.")
@acting_agent(help="With --children: worker that has the job.", required=False)
@click.option("--fence", type=INTEGER, metavar="N", help="With --children: fence that the claim printed.")
@click.option("--reason", metavar="TEXT", help="Reason, for the worker and for the history.")
@click.pass_obj
def cancel(call: Invocation, /, *, tree: bool, children: bool, agent: AgentRef | None, **options: Any) -> None:
    """Cancel a job. If it is running, its worker has 30 seconds to stop."""
    fence = options.pop("fence")
    if children:
        if agent is None or fence is None or tree:
            raise click.UsageError("--children takes --agent and --fence, and not --tree")
        count = call.run(call.operation(job_trees.CancelChildren, agent=agent, fence=fence, **options))
        call.output.line(str(count) if call.output.json else f"{counted(count, 'job')} cancelled")
        return
    if fence is not None:
        raise click.UsageError("--fence belongs to --children")
    outcome = call.run(call.operation(jobs.Cancel, tree=tree, **options))
    call.output.one(outcome, _cancelled(outcome) if tree else state_of(outcome))


def _cancelled(outcome: JobCancellation) -> str:
    """Describe what became of a tree and, unless it was cancelled as well, of the job at its top."""
    text = f"{counted(outcome.cancelled, 'job')} cancelled"
    if outcome.following:
        text += f"; a daemon cancels {outcome.following} more"
    return text if outcome.status == "cancelled" else f"{text}; the job itself is {state_of(outcome)}"


@command.verb(examples=['coordinator job pause "$id" --tree --reason "The site is down"'])
@job_argument
@click.option(
    "--tree",
    is_flag=True,
    help="Also pause all jobs below it, and children that are added later. After 1,000, a daemon pauses the rest.",
)
@click.option("--reason", metavar="TEXT", help="Reason, for people.")
@click.pass_obj
def pause(call: Invocation, /, *, tree: bool, **options: Any) -> None:
    """Pause a job: no worker can claim it. A running attempt continues."""
    outcome = call.run(call.operation(job_trees.Pause, tree=tree, **options))
    running = "; it runs, and this attempt continues" if outcome.status == "running" else ""
    call.output.one(outcome, f"paused{_below(outcome, tree, 'pauses')}{running}")


@command.verb(examples=['coordinator job resume "$id" --tree'])
@job_argument
@click.option("--tree", is_flag=True, help="Also resume all jobs below it. After 1,000, a daemon resumes the rest.")
@click.pass_obj
def resume(call: Invocation, /, *, tree: bool, **options: Any) -> None:
    """Resume a paused job."""
    outcome = call.run(call.operation(job_trees.Resume, tree=tree, **options))
    call.output.one(outcome, f"resumed{_below(outcome, tree, 'resumes')}; it is {state_of(outcome)}")


def _below(outcome: JobTreeOutcome, tree: bool, verb: str) -> str:
    """Describe what becomes of the jobs below a job that was paused or resumed."""
    if outcome.following:
        return f", with jobs below it, of which a daemon {verb} {outcome.following} more"
    return ", with all jobs below it" if tree else ""


@command.verb(
    examples=[
        "coordinator job retry 01a2155e-ba17-77e3-ac99-d90c691a84ae",
        "coordinator job retry --status failed --type summarize",
        "coordinator job retry --reason worker_lost --limit 10",
        "coordinator job retry 01a2155e-ba17-77e3-ac99-d90c691a84ae --from send",
        "coordinator job retry 01a2155e-ba17-77e3-ac99-d90c691a84ae --from page --ordinal 3",
    ]
)
@click.argument("job", type=JOB, metavar="[ID]", required=False)
@status_option
@click.option("--reason", metavar="REASON", help="Only jobs that ended for this reason, such as worker_lost.")
@type_option
@queue_option
@key_option
@click.option("--limit", type=INTEGER, default=1000, show_default=True, metavar="N", help="At most this many.")
@click.option("--from", "from_step", metavar="STEP", help="Reuse the steps that had finished before this one.")
@click.option(
    "--ordinal",
    "from_ordinal",
    type=INTEGER,
    default=1,
    show_default=True,
    metavar="N",
    help="Ordinal of the step among those with this name.",
)
@click.pass_obj
def retry(call: Invocation, /, *, job: UUID | None, status: tuple[str, ...], **options: Any) -> None:
    """Enqueue the job ID again, or all jobs that match the options.

    Each is retried once. Prints the ids of the new jobs.
    """
    made = call.run(call.operation(job_history.Retry, job=job, status=[*status] or None, **options))
    call.output.many(made, ("id", "retry_of", "type", "queue", "status", "steps"), empty="There is nothing to retry.")
    if any(not retried.created for retried in made):
        call.output.note(
            "It was retried before, as this job, and is not enqueued again. If this job failed too, retry it."
        )
