"""``coordinator job``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import click
import msgspec
from click.exceptions import Exit

from coordinator.cli.command import acting_agent, noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.cli.values import COST, DURATION, ID, INSTANT, INTEGER, JOB, NUMBER, read_json, read_text, read_value
from coordinator.model.agent_ref import AgentRef
from coordinator.model.job import JobOutcome
from coordinator.model.job_wait import JobSuspension
from coordinator.model.operation import Json
from coordinator.operations import job_history, job_trees, job_waits, jobs

command = noun("Jobs: work that is handed over and never lost.")

COLUMNS = (
    "id", "type", "status", "queue", "key", "attempts", "worker", "created_at", "completed_at", "reason", "error", "payload",
    "result", "priority", "labels", "locks", "scheduled_at", "started_at", "percent", "message", "actor",
)  # fmt: skip

_status = click.option("--status", multiple=True, metavar="STATUS", help="Only of this status; repeatable.")
_type = click.option("--type", metavar="TYPE", help="Only of this type.")
_queue = click.option("--queue", metavar="QUEUE", help="Only of this queue.")
_key = click.option("--key", metavar="KEY", help="Only with this key.")
GRANT = (
    "id",
    "fence",
    "type",
    "attempt",
    "key",
    "payload",
    "checkpoint",
    "deadline_at",
    "queue",
    "stale",
    "steps",
    "tokens",
)
STEP = ("place", "name", "ordinal", "kind", "result", "actor", "finished_at", "fence")
RECEIPT = ("id", "status", "type", "queue", "scheduled_at", "created")

_agent = acting_agent(help="Worker that has the job.")
_fence = click.option("--fence", type=INTEGER, required=True, metavar="N", help="Fence that the claim printed.")
_job = click.argument("job", type=JOB, metavar="ID")


def _attempt(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every verb of a worker takes."""
    return _job(_agent(_fence(function)))


@command.verb(
    examples=[
        "job=$(coordinator job enqueue summarize '{\"page\": 7}' --output text)",
        "coordinator job enqueue build '{}' --queue builds --key acme --priority 5 --at 10m --label gpu",
        "coordinator job enqueue report --at 2030-01-31T06:00Z --dedupe-key report/2030-01 --on-duplicate skip",
        "coordinator job enqueue summarize --lines pages.jsonl     # a job for each line, or - for standard input",
    ]
)
@click.argument("type", required=False)
@click.argument("payload", metavar="[JSON]", required=False)
@click.option("-q", "--queue", metavar="NAME", help="Queue.  [default: default]")
@click.option("-k", "--key", metavar="KEY", help="Key by which a fair queue takes turns.")
@click.option("--priority", type=INTEGER, metavar="N", help="-100 to 100; higher comes first.  [default: 0]")
@click.option("--at", type=INSTANT, metavar="TIME", help="Do not start it before: 2030-01-31T14:00Z, or 10m from now.")
@click.option("--delay", type=DURATION, help="Do not start it before this long has passed.")
@click.option("--start-by", type=INSTANT, metavar="TIME", help="Let it expire unless it has started by then.")
@click.option("--max-attempts", type=INTEGER, metavar="N", help="Maximum of attempts.  [default: 3]")
@click.option("--backoff", type=DURATION, help="Wait after the first failed attempt, doubled by each.  [default: 10s]")
@click.option("--deadline", type=DURATION, help="Maximum length of an attempt.  [default: 1d]")
@click.option("--stall", type=DURATION, help="Maximum time without progress.  [default: no maximum]")
@click.option(
    "--rescue", metavar="retry|resume|fail", help="After a lost attempt: retry, resume from its checkpoint, or fail."
)
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="Require this label of the worker; repeatable.")
@click.option("--dedupe-key", metavar="KEY", help="Enqueue it only if no other job answers for this key.")
@click.option("--dedupe-for", type=DURATION, help="Let it answer for its key this long.  [default: until it ends]")
@click.option(
    "--on-duplicate", metavar="raise|skip|replace", help="If another job answers for the key.  [default: raise]"
)
@click.option("--dedupe-failed", is_flag=True, help="Let it answer for its key even if it does not complete.")
@click.option("--parent", type=JOB, metavar="ID", help="Job that enqueues it.")
@click.option(
    "--after", type=JOB, multiple=True, metavar="ID", help="Let it wait until this job has completed; repeatable."
)
@click.option("--after-mode", metavar="all|any", help="Wait for all of them, or for one.  [default: all]")
@click.option(
    "--on-failure",
    metavar="cancel|ignore|run",
    help="If one of them does not complete: cancel it, wait for the others, or run it.  [default: cancel]",
)
@click.option("--lock", "locks", multiple=True, metavar="RESOURCE", help="Lock this while it runs; repeatable.")
@click.option(
    "--limit",
    "limits",
    type=COST,
    multiple=True,
    metavar="NAME[=COST]",
    help="Limit that it needs, and what it costs of it; repeatable.  [default: 1]",
)
@click.option(
    "--lines", metavar="FILE", help="Enqueue a job for each line, an object of these options; - reads standard input."
)
@click.pass_obj
def enqueue(call: Invocation, /, *, payload: str | None, lines: str | None, **options: Any) -> None:
    """Enqueue a job, and print its id.

    A worker with TYPE among its job types runs it, if it has all labels. JSON is the payload, by default {}; - reads standard input.

    With --lines, each line is an object such as {"type": "summarize", "payload": {"page": 7}}; TYPE and the options are the defaults.
    Up to 10,000 lines are enqueued at once, all or none.
    """
    given = {name: value for name, value in options.items() if value not in (None, (), False)}
    if "limits" in given:
        given["limits"] = dict(given["limits"])
    if lines is not None:
        if payload is not None:
            raise click.UsageError("give JSON or --lines, not both")
        from coordinator.cli.job_lines import enqueue_lines  # noqa: PLC0415

        receipts = enqueue_lines(call, lines, given)
        call.output.many(receipts, RECEIPT, empty="No jobs were enqueued.")
        return
    if "type" not in given:
        raise click.UsageError("give a TYPE, or --lines")
    if payload is not None:
        given["payload"] = read_json(read_text(payload), "JSON")
    receipt = call.run(call.operation(jobs.Enqueue, **given))
    if not receipt.created:
        call.output.note(f"a job that is {receipt.status} answers for the dedupe key")
    call.output.one(receipt, str(receipt.id))


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
@click.option("--short", is_flag=True, help="Print only id and fence, a line for each job.")
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

    Each has a fence, which the verbs of the worker take. Of the worker's job types, with labels that it has. None may be there.
    """
    operation = call.operation(jobs.Claim, queues=list(queues) or None, types=list(types) or None, **options)
    grants = call.run(operation) if wait is None else call.until_answered(operation, wait.total_seconds())
    if short:
        for grant in grants:
            call.output.line(f"{grant.id} {grant.fence}")
        return
    call.output.many(grants, GRANT, empty="There is no job to claim.")


@command.verb(examples=['coordinator job complete "$id" --agent w --fence 42 \'{"words": 812}\''])
@_attempt
@click.argument("result", metavar="[JSON]", default="null")
@click.pass_obj
def complete(call: Invocation, *, job: UUID, agent: AgentRef, fence: int, result: str) -> None:
    """Complete a job. JSON is its result; - reads standard input.

    Exit code 4: the job is no longer the worker's; the message says whose it is, or how it ended.
    """
    value = read_json(read_text(result), "JSON")
    _show(call, call.run(call.operation(jobs.Complete, job=job, agent=agent, fence=fence, result=value)))


@command.verb(
    examples=[
        'coordinator job fail "$id" --agent w --fence 42 "no space left" --retry-at 10m',
        'coordinator job fail "$id" --agent w --fence 42 "no such page" --final',
    ]
)
@_attempt
@click.argument("error", metavar="TEXT")
@click.option("--final", is_flag=True, help="Do not retry it.")
@click.option(
    "--retry-at", type=INSTANT, metavar="TIME", help="Retry it then: an instant, or 10m from now.  [default: back-off]"
)
@click.pass_obj
def fail(call: Invocation, /, **options: Any) -> None:
    """End an attempt with an error. The job is retried, unless this was its last attempt."""
    _show(call, call.run(call.operation(jobs.Fail, **options)))


@command.verb(
    examples=['coordinator job progress "$id" --agent w --fence 42 --percent 50 --checkpoint \'{"page": 3}\'']
)
@_attempt
@click.option("--percent", type=NUMBER, metavar="N", help="0 to 100.")
@click.option("--message", metavar="TEXT", help="Progress in words.")
@click.option("--checkpoint", metavar="JSON", help="What a next attempt can continue from; - reads standard input.")
@click.pass_obj
def progress(call: Invocation, /, *, checkpoint: str | None, **options: Any) -> None:
    """Report the progress of a job. The answer says whether the worker must stop."""
    value: Json = None if checkpoint is None else read_json(read_text(checkpoint), "--checkpoint")
    lease = call.run(call.operation(jobs.Report, checkpoint=value, **options))
    text = f"the worker may have it until {lease.deadline_at:%Y-%m-%d %H:%M:%S}Z"
    if lease.cancel_at is not None:
        text = f"a cancellation was requested: stop within {age(lease.cancel_at).removeprefix('in ')}"
    call.output.one(lease, text)


@command.verb(
    examples=[
        'coordinator job step "$id" fetch \'{"bytes": 812}\' --agent w --fence 42',
        'coordinator job step "$id" page \'"done"\' --ordinal 3 --agent w --fence 42',
    ]
)
@_attempt
@click.argument("step", metavar="STEP")
@click.argument("result", metavar="[JSON]", default="null")
@click.option(
    "--ordinal", type=INTEGER, default=1, show_default=True, metavar="N", help="Which of the steps of this name it is."
)
@click.pass_obj
def step(call: Invocation, /, *, result: str, **options: Any) -> None:
    """Store the result of a step of a job. JSON is the result; - reads standard input.

    The next attempt reads it with "coordinator job steps". A repetition with the same result changes nothing.
    """
    value = read_json(read_text(result), "JSON")
    stored = call.run(call.operation(job_waits.FinishStep, result=value, **options))
    call.output.one(stored, f"step {stored.place} is finished")


@command.verb(
    examples=[
        'coordinator job suspend "$id" deployed --signal deploy/state --ttl 1h --agent w --fence 42',
        'coordinator job suspend "$id" reply --event custom.reply=7 --delay 10m --agent w --fence 42',
        'coordinator job suspend "$id" parts --job "$id" --agent w --fence 42',
    ]
)
@_attempt
@click.argument("step", metavar="STEP")
@click.option("--at", type=INSTANT, metavar="TIME", help="Until this instant, or 10m from now.")
@click.option("--delay", type=DURATION, help="For this long.")
@click.option("--signal", "signals", multiple=True, metavar="KEY[=JSON]", help="Until a signal is set; repeatable.")
@click.option("--event", "events", multiple=True, metavar="TOPIC[=KEY]", help="Until an event; repeatable.")
@click.option("--job", "others", type=JOB, multiple=True, metavar="ID", help="Until other jobs have ended; repeatable.")
@click.option("--any", "any_", is_flag=True, help="Of the jobs, until any has ended.  [default: all]")
@click.option(
    "--directive", "directives", type=INTEGER, multiple=True, metavar="N", help="Until an answer; repeatable."
)
@click.option("--conditions", metavar="JSON", help="An array of conditions instead; - reads standard input.")
@click.option("--ttl", type=DURATION, help="At most this long.  [default: no maximum]")
@click.option(
    "--ordinal", type=INTEGER, default=1, show_default=True, metavar="N", help="Which of the steps of this name it is."
)
@click.option("--after", metavar="CURSOR", help="Only events after it.  [default: since the job first started]")
@click.pass_obj
def suspend(
    call: Invocation,
    /,
    *,
    at: datetime | None,
    delay: timedelta | None,
    signals: tuple[str, ...],
    events: tuple[str, ...],
    others: tuple[UUID, ...],
    any_: bool,
    directives: tuple[int, ...],
    conditions: str | None,
    **options: Any,
) -> None:
    """Let a job wait without its worker.

    It waits for the first of the conditions. The outcome becomes the result of STEP: "met" is the place of the condition, in the order of the options here, or null after --ttl.
    """
    wanted: list[dict[str, Json]] = []
    if at is not None:
        wanted.append({"at": at.isoformat()})
    if delay is not None:
        wanted.append({"delay": delay.total_seconds()})
    for key, separator, value in (signal.partition("=") for signal in signals):
        wanted.append({"signal": key, "value": read_json(value, "--signal")} if separator else {"signal": key})
    for topic, separator, key in (event.partition("=") for event in events):
        wanted.append({"event": topic, "key": key} if separator else {"event": topic})
    if others:
        wanted.append({"jobs": [str(job) for job in others], "mode": "any" if any_ else "all"})
    wanted += [{"directive": directive} for directive in directives]
    if conditions is not None:
        given = read_json(read_text(conditions), "--conditions")
        if wanted or not isinstance(given, list):
            raise click.UsageError("--conditions takes an array, and no other condition beside it")
        wanted = given
    _suspended(call, call.run(call.operation(job_waits.Suspend, conditions=wanted, **options)))


@command.verb(
    examples=[
        'coordinator job ask "$id" approval "Deploy 1.2?" --option yes --option no --agent w --fence 42',
        'coordinator job ask "$id" approval "Deploy?" --ttl 1h --default \'"no"\' --agent w --fence 42',
    ]
)
@_attempt
@click.argument("step", metavar="STEP")
@click.argument("question", metavar="TEXT")
@click.option("--option", "options", multiple=True, metavar="TEXT", help="A possible answer; repeatable.")
@click.option("--ttl", type=DURATION, help="Wait at most this long.  [default: no maximum]")
@click.option("--default", "fallback", metavar="JSON", help="The answer after that.  [default: null]")
@click.option(
    "--ordinal", type=INTEGER, default=1, show_default=True, metavar="N", help="Which of the steps of this name it is."
)
@click.pass_obj
def ask(call: Invocation, /, *, options: tuple[str, ...], fallback: str | None, **given: Any) -> None:
    """Ask managers a question, and let the job wait for the answer.

    The answer becomes the result of STEP, with who gave it.
    """
    value: Json = None if fallback is None else read_json(read_text(fallback), "--default")
    operation = call.operation(job_waits.Ask, options=list(options) or None, fallback=value, **given)
    _suspended(call, call.run(operation))


@command.verb(
    examples=[
        "coordinator job answer 01a2155e-ba17-77e3-ac99-d90c691a84ae yes",
        "coordinator job answer 01a2155e-ba17-77e3-ac99-d90c691a84ae no --reason 'Not on a Friday'",
    ]
)
@_job
@click.argument("value", metavar="VALUE")
@click.option("--reason", metavar="TEXT", help="Reason, for the worker and for the history.")
@click.option("--step", metavar="STEP", help="Only if it asks this question.")
@click.option("--ordinal", type=INTEGER, metavar="N", help="Only if it is this one of that name.")
@click.pass_obj
def answer(call: Invocation, /, *, value: str, **options: Any) -> None:
    """Answer the question of a job. VALUE is JSON, or else text.

    Whoever asked may not answer.
    """
    operation = call.operation(job_waits.Answer, value=read_value(read_text(value)), **options)
    call.output.one(call.run(operation), "answered")


@command.verb(examples=["coordinator job questions"])
@paged
@click.pass_obj
def questions(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the questions of jobs that wait for an answer."""
    call.list(
        job_waits.ListQuestions(project=call.project),
        ("job", "question", "options", "worker", "asked_at", "due_at", "fallback", "step", "ordinal", "type", "queue"),
        after=after,
        limit=limit,
        empty="No job asks anything.",
    )


@command.verb(
    examples=[
        'coordinator job write "$id" "The answer is " --agent w --fence 42',
        'coordinator job write "$id" --chunk \'{"rows": 17}\' --agent w --fence 42',
        'model | coordinator job write "$id" - --agent w --fence 42',
    ]
)
@_attempt
@click.argument("text", required=False)
@click.option("--chunk", "chunks", multiple=True, metavar="JSON", help="Write a JSON value; repeatable.")
@click.option("--seq", type=INTEGER, metavar="N", help="Number of the first chunk, so that the call can be repeated.")
@click.pass_obj
def write(call: Invocation, /, *, text: str | None, chunks: tuple[str, ...], **options: Any) -> None:
    """Append to the output of a job: TEXT, or JSON values. - reads standard input."""
    if (text is None) == (not chunks):
        raise click.UsageError("give TEXT or --chunk")
    values = [read_json(chunk, "--chunk") for chunk in chunks] if text is None else [read_text(text)]
    last = call.run(call.operation(jobs.Write, chunks=values, **options))
    call.output.one({"last": last}, f"chunk {last}")


@command.verb(examples=['coordinator job spend "$id" dollars 1250 --agent w --fence 42     # so much more'])
@_attempt
@click.argument("budget")
@click.argument("amount", type=INTEGER)
@click.pass_obj
def spend(call: Invocation, /, **options: Any) -> None:
    """Add to what a job has spent of a budget. The answer says whether the worker must stop.

    The end of the attempt charges the sum; if nothing was reported, what was reserved.
    """
    charge = call.run(call.operation(jobs.Spend, **options))
    text = f"it has spent {charge.spent}; {charge.free} of {plain(charge.budget)} is free"
    if charge.cancel_at is not None:
        text += f"; a cancellation was requested: stop within {age(charge.cancel_at).removeprefix('in ')}"
    call.output.one(charge, text)


@command.verb(examples=['coordinator job snooze "$id" 10m --agent w --fence 42'])
@_attempt
@click.argument("delay", type=DURATION, metavar="DURATION")
@click.pass_obj
def snooze(call: Invocation, /, **options: Any) -> None:
    """Put a job off, with its checkpoint. This spends no attempt."""
    _show(call, call.run(call.operation(jobs.Snooze, **options)))


@command.verb(examples=['coordinator job release "$id" --agent w --fence 42'])
@_attempt
@click.pass_obj
def release(call: Invocation, /, **options: Any) -> None:
    """Return a job to its place in the queue. This spends no attempt."""
    _show(call, call.run(call.operation(jobs.Release, **options)))


@command.verb(examples=['coordinator job reconcile --agent "$id" --fence 42 --fence 43'])
@acting_agent(help="Worker.")
@click.option(
    "--fence", "fences", type=INTEGER, multiple=True, metavar="N", help="Fence of a job that it has; repeatable."
)
@click.option(
    "--grace", type=DURATION, default="10s", show_default=True, help="Time that the answer of a claim may take."
)
@click.pass_obj
def reconcile(call: Invocation, /, **options: Any) -> None:
    """Compare the jobs of a worker with those that it knows of.

    Print a row for each fence that needs attention. lost: the job is no longer the worker's. cancel: a cancellation was requested.
    released: the worker did not know that it had the job.
    """
    verdicts = call.run(call.operation(jobs.Reconcile, **options))
    call.output.many(verdicts, ("fence", "verdict", "id"), empty="Everything is as the worker says.")


@command.verb(
    examples=[
        "coordinator job cancel \"$id\" --reason 'The page is gone'",
        'coordinator job cancel "$id" --tree',
        'coordinator job cancel "$id" --children --agent w --fence 42',
    ]
)
@_job
@click.option("--tree", is_flag=True, help="Cancel all jobs below it, too, even if it has ended.")
@click.option("--children", is_flag=True, help="Cancel only the jobs below it; its worker may do that.")
@acting_agent(help="With --children: worker that has the job.", required=False)
@click.option("--fence", type=INTEGER, metavar="N", help="With --children: fence that the claim printed.")
@click.option("--reason", metavar="TEXT", help="Reason, for the worker and for the history.")
@click.pass_obj
def cancel(call: Invocation, /, *, tree: bool, children: bool, agent: AgentRef | None, **options: Any) -> None:
    """Cancel a job. The worker of a running one has 30 seconds to stop."""
    fence = options.pop("fence")
    if children:
        if agent is None or fence is None or tree:
            raise click.UsageError("--children takes --agent and --fence, and not --tree")
        count = call.run(call.operation(job_trees.CancelChildren, agent=agent, fence=fence, **options))
        call.output.line(str(count))
        return
    if fence is not None:
        raise click.UsageError("--fence belongs to --children")
    _show(call, call.run(call.operation(jobs.Cancel, tree=tree, **options)))


@command.verb(examples=['coordinator job pause "$id" --tree --reason "The site is down"'])
@_job
@click.option("--tree", is_flag=True, help="Pause all jobs below it, too, and children that it gets later.")
@click.option("--reason", metavar="TEXT", help="Reason, for people.")
@click.pass_obj
def pause(call: Invocation, /, **options: Any) -> None:
    """Pause a job: no worker can claim it. An attempt that runs continues."""
    _show(call, call.run(call.operation(job_trees.Pause, **options)))


@command.verb(examples=['coordinator job resume "$id" --tree'])
@_job
@click.option("--tree", is_flag=True, help="Resume all jobs below it, too.")
@click.pass_obj
def resume(call: Invocation, /, **options: Any) -> None:
    """Resume a job that was paused."""
    _show(call, call.run(call.operation(job_trees.Resume, **options)))


@command.verb(
    examples=[
        'coordinator job tree "$id"',
        'coordinator job tree "$id" -o json | jq -r ".[] | .id"',
    ]
)
@_job
@paged
@click.pass_obj
def tree(call: Invocation, /, *, job: UUID, after: str | None, limit: int | None) -> None:
    """List a job and all those below it.

    A parent comes before its children. As text, they are drawn as a tree.
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
@click.option("--parent", type=JOB, metavar="ID", help="Only children of this job.")
@click.option("--root", type=JOB, metavar="ID", help="Only jobs below this one, which has no parent.")
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
@_job
@click.pass_obj
def show(call: Invocation, *, job: UUID) -> None:
    """Show a job: its state, payload, result and error.

    As text, followed by what it waits for, and by its finished steps.
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
@_job
@click.option("-f", "--follow", is_flag=True, help="Print what comes, until the job has ended.")
@click.option("--after", type=INTEGER, metavar="N", help="Begin after this chunk.")
@click.pass_obj
def output(call: Invocation, *, job: UUID, follow: bool, after: int | None) -> None:
    """Print the output of a job.

    Texts are printed as they are, other values as JSON; with -o json, a line for each chunk. With --follow, a lost connection is made again, and nothing is missed. The exit code is 4 if the job did not complete.
    """
    from coordinator.cli.job_output import print_output  # noqa: PLC0415

    status = print_output(
        call, job_history.ReadOutput(project=call.project, job=job, after=[str(after or 0)]), follow=follow
    )
    if status not in (None, "completed"):
        raise Exit(4)


@command.verb(
    examples=[
        "coordinator job steps 01a2155e-ba17-77e3-ac99-d90c691a84ae",
        'coordinator job steps "$id" -o json | jq \'.[] | select(.name == "fetch").result\'',
    ]
)
@_job
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
@_job
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
@_job
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
@_job
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
        "coordinator job retry 01a2155e-ba17-77e3-ac99-d90c691a84ae --from send",
        "coordinator job retry 01a2155e-ba17-77e3-ac99-d90c691a84ae --from page --ordinal 3",
    ]
)
@click.argument("job", type=JOB, metavar="[ID]", required=False)
@_status
@click.option("--reason", metavar="REASON", help="Only of this reason, such as worker_lost.")
@_type
@_queue
@_key
@click.option("--limit", type=INTEGER, default=1000, show_default=True, metavar="N", help="At most this many.")
@click.option("--from", "from_step", metavar="STEP", help="Reuse the steps that had finished before this one.")
@click.option(
    "--ordinal",
    "from_ordinal",
    type=INTEGER,
    default=1,
    show_default=True,
    metavar="N",
    help="Which of the steps of this name it is.",
)
@click.pass_obj
def retry(call: Invocation, /, *, job: UUID | None, status: tuple[str, ...], **options: Any) -> None:
    """Enqueue JOB again, or all that meet the conditions.

    Each is retried once. Prints the ids of the new jobs.
    """
    made = call.run(call.operation(job_history.Retry, job=job, status=[*status] or None, **options))
    call.output.many(
        made, ("id", "retry_of", "type", "queue", "status", "created", "steps"), empty="There is nothing to retry."
    )


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


def _show(call: Invocation, outcome: JobOutcome) -> None:
    """Write what became of a job."""
    reason = f" ({plain(outcome.reason)})" if outcome.reason else ""
    call.output.one(outcome, f"{outcome.status}{reason}{_due(outcome.status, outcome.due_at)}")


def _suspended(call: Invocation, suspension: JobSuspension) -> None:
    """Write what became of a job that was suspended."""
    text = (
        suspension.status
        if suspension.due_at is None
        else f"{suspension.status}, until {suspension.due_at:%Y-%m-%d %H:%M:%S}Z"
    )
    if suspension.result is not None:
        text = f"the wait is over: {msgspec.json.encode(suspension.result).decode()}"
    call.output.one(suspension, plain(text))


def _due(status: str, due_at: datetime | None) -> str:
    if due_at is None:
        return ""
    return f", its fence is revoked {age(due_at)}" if status == "running" else f", it starts again {age(due_at)}"
