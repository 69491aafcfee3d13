"""Steps of a job, and what it waits for without its worker."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import click

from coordinator.cli.command import paged
from coordinator.cli.commands.job.noun import command, job_argument, of_attempt, ordinal_option, show_suspension
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import DURATION, INSTANT, INTEGER, JOB, read_json, read_text, read_value
from coordinator.model.operation import Json
from coordinator.operations import job_waits


@command.verb(
    examples=[
        'coordinator job step "$id" fetch \'{"bytes": 812}\' --agent w --fence 42',
        'coordinator job step "$id" page \'"done"\' --ordinal 3 --agent w --fence 42',
    ]
)
@of_attempt
@click.argument("step", metavar="STEP")
@click.argument("result", metavar="[JSON]", default="null")
@ordinal_option
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
@of_attempt
@click.argument("step", metavar="STEP")
@click.option("--at", type=INSTANT, metavar="TIME", help="Until this instant, or 10m from now.")
@click.option("--delay", type=DURATION, help="For this long.")
@click.option("--signal", "signals", multiple=True, metavar="KEY[=JSON]", help="Until a signal is set; repeatable.")
@click.option("--event", "events", multiple=True, metavar="TOPIC[=KEY]", help="Until an event; repeatable.")
@click.option("--job", "others", type=JOB, multiple=True, metavar="ID", help="Until other jobs have ended; repeatable.")
@click.option("--any", "any_", is_flag=True, help="Until any of the jobs has ended.  [default: all]")
@click.option(
    "--directive",
    "directives",
    type=INTEGER,
    multiple=True,
    metavar="N",
    help="Until an agent answers this directive; repeatable.",
)
@click.option("--conditions", metavar="JSON", help="An array of conditions instead; - reads standard input.")
@click.option("--ttl", type=DURATION, help="At most this long.  [default: no maximum]")
@ordinal_option
@click.option(
    "--after", metavar="CURSOR", help="Only events after this cursor.  [default: since the job first started]"
)
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

    The job waits for the first condition that is met. The outcome becomes the result of STEP: "met" is the index of the condition, in the order of the options here, or null after --ttl.
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
    show_suspension(call, call.run(call.operation(job_waits.Suspend, conditions=wanted, **options)))


@command.verb(
    examples=[
        'coordinator job ask "$id" approval "Deploy 1.2?" --option yes --option no --agent w --fence 42',
        'coordinator job ask "$id" approval "Deploy?" --ttl 1h --default \'"no"\' --agent w --fence 42',
    ]
)
@of_attempt
@click.argument("step", metavar="STEP")
@click.argument("question", metavar="TEXT")
@click.option("--option", "options", multiple=True, metavar="TEXT", help="A possible answer; repeatable.")
@click.option("--ttl", type=DURATION, help="Wait at most this long.  [default: no maximum]")
@click.option("--default", "fallback", metavar="JSON", help="The answer after that.  [default: null]")
@ordinal_option
@click.pass_obj
def ask(call: Invocation, /, *, options: tuple[str, ...], fallback: str | None, **given: Any) -> None:
    """Ask managers a question, and let the job wait for the answer.

    The answer, and who gave it, become the result of STEP.
    """
    value: Json = None if fallback is None else read_json(read_text(fallback), "--default")
    operation = call.operation(job_waits.Ask, options=list(options) or None, fallback=value, **given)
    show_suspension(call, call.run(operation))


@command.verb(
    examples=[
        "coordinator job answer 01a2155e-ba17-77e3-ac99-d90c691a84ae yes",
        "coordinator job answer 01a2155e-ba17-77e3-ac99-d90c691a84ae no --reason 'Not on a Friday'",
    ]
)
@job_argument
@click.argument("value", metavar="VALUE")
@click.option("--reason", metavar="TEXT", help="Reason, for the worker and for the history.")
@click.option("--step", metavar="STEP", help="Only if it asks this question.")
@click.option("--ordinal", type=INTEGER, metavar="N", help="Only if the step has this ordinal.")
@click.pass_obj
def answer(call: Invocation, /, *, value: str, **options: Any) -> None:
    """Answer the question of a job. VALUE is JSON if it parses as JSON, otherwise text.

    The agent that asked cannot answer.
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
