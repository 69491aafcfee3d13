"""Enqueue jobs."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.commands.job.noun import command
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import COST, DURATION, INSTANT, INTEGER, JOB, read_json, read_text
from coordinator.operations import jobs

RECEIPT = ("id", "status", "type", "queue", "scheduled_at", "created")


@command.verb(
    examples=[
        "job=$(coordinator job enqueue summarize '{\"page\": 7}' --output text)",
        "coordinator job enqueue build '{}' --queue builds --key acme --priority 5 --at 10m --label gpu",
        "coordinator job enqueue report --at 12h --dedupe-key report/monday --on-duplicate skip",
        "coordinator job enqueue summarize --lines pages.jsonl     # a job for each line, or - for standard input",
    ]
)
@click.argument("type", required=False)
@click.argument("payload", metavar="[JSON]", required=False)
@click.option("-q", "--queue", metavar="NAME", help="Queue.  [default: default]")
@click.option("-k", "--key", metavar="KEY", help="Key by which a fair queue takes turns.")
@click.option("--priority", type=INTEGER, metavar="N", help="-100 to 100; higher comes first.  [default: 0]")
@click.option(
    "--at",
    type=INSTANT,
    metavar="TIME",
    help="Do not start it before this time, such as 2030-01-31T14:00Z, or 10m from now; at most 366 days ahead.",
)
@click.option("--delay", type=DURATION, help="Do not start it until this long has passed.")
@click.option("--start-by", type=INSTANT, metavar="TIME", help="Expire it if it has not started by this time.")
@click.option("--max-attempts", type=INTEGER, metavar="N", help="Maximum number of attempts.  [default: 3]")
@click.option(
    "--backoff",
    type=DURATION,
    help="Wait after the first failed attempt, doubled after each further one.  [default: 10s]",
)
@click.option("--deadline", type=DURATION, help="Maximum duration of an attempt.  [default: 1d]")
@click.option("--stall", type=DURATION, help="Maximum time without progress.  [default: no maximum]")
@click.option(
    "--rescue", metavar="retry|resume|fail", help="After a lost attempt: retry, resume from its checkpoint, or fail."
)
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="Require this label of the worker; repeatable.")
@click.option("--dedupe-key", metavar="KEY", help="Enqueue it only if no other job holds this key.")
@click.option("--dedupe-for", type=DURATION, help="Hold its key this long.  [default: until it ends]")
@click.option(
    "--on-duplicate", metavar="raise|skip|replace", help="What to do if another job holds the key.  [default: raise]"
)
@click.option("--dedupe-failed", is_flag=True, help="Hold its key even if it does not complete.")
@click.option("--parent", type=JOB, metavar="ID", help="Job that enqueues it.")
@click.option(
    "--after", type=JOB, multiple=True, metavar="ID", help="Start it only after this job has completed; repeatable."
)
@click.option("--after-mode", metavar="all|any", help="Wait for all of them, or for one.  [default: all]")
@click.option(
    "--on-failure",
    metavar="cancel|ignore|run",
    help="If one of them does not complete: cancel it, wait for the others, or run it.  [default: cancel]",
)
@click.option(
    "--lock", "locks", multiple=True, metavar="RESOURCE", help="Lock this resource while it runs; repeatable."
)
@click.option(
    "--limit",
    "limits",
    type=COST,
    multiple=True,
    metavar="NAME[=COST]",
    help="Limit that it needs, and its cost; repeatable.  [default: 1]",
)
@click.option(
    "--lines", metavar="FILE", help="Enqueue a job for each line, an object of these options; - reads standard input."
)
@click.pass_obj
def enqueue(call: Invocation, /, *, payload: str | None, lines: str | None, **options: Any) -> None:
    """Enqueue a job, and print its id.

    A worker runs the job if it has TYPE among its job types, and all labels. JSON is the payload, {} by default; - reads standard input.

    With --lines, each line is an object such as {"type": "summarize", "payload": {"page": 7}}; TYPE and the options are the defaults.
    Up to 10,000 lines are enqueued atomically.
    """
    given = {name: value for name, value in options.items() if value not in (None, ()) and value is not False}
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
        call.output.note(f"a job that is {receipt.status} holds the dedupe key")
    call.output.one(receipt, str(receipt.id))
