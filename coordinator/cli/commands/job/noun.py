"""The noun, and what its verbs have in common."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click
import msgspec

from coordinator.cli.command import acting_agent, noun
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.cli.values import INTEGER, JOB
from coordinator.model.job import JobOutcome
from coordinator.model.job_wait import JobSuspension

__all__ = [
    "command",
    "job_argument",
    "key_option",
    "of_attempt",
    "ordinal_option",
    "queue_option",
    "show_outcome",
    "show_suspension",
    "state_of",
    "status_option",
    "type_option",
]

command = noun("Jobs: work that agents hand over, and that is never lost.")
job_argument = click.argument("job", type=JOB, metavar="ID")


def of_attempt(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every verb of a worker takes."""
    agent = acting_agent(help="Worker that has the job.")
    fence = click.option("--fence", type=INTEGER, required=True, metavar="N", help="Fence that the claim printed.")
    return job_argument(agent(fence(function)))


status_option = click.option("--status", multiple=True, metavar="STATUS", help="Only of this status; repeatable.")
type_option = click.option("--type", metavar="TYPE", help="Only of this type.")
queue_option = click.option("--queue", metavar="QUEUE", help="Only of this queue.")
key_option = click.option("--key", metavar="KEY", help="Only with this key.")
ordinal_option = click.option(
    "--ordinal",
    type=INTEGER,
    default=1,
    show_default=True,
    metavar="N",
    help="Ordinal of the step among those with this name.",
)


def show_outcome(call: Invocation, outcome: JobOutcome) -> None:
    """Write what became of a job."""
    call.output.one(outcome, state_of(outcome))


def state_of(outcome: JobOutcome) -> str:
    """Describe the state of a job, for people."""
    reason = f" ({plain(outcome.reason)})" if outcome.reason not in (None, outcome.status) else ""
    return f"{outcome.status}{reason}{_due(outcome.status, outcome.due_at)}"


def show_suspension(call: Invocation, suspension: JobSuspension) -> None:
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
