"""``coordinator cron``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import INSTANT, INTEGER, OBJECT, given, read_json, read_text
from coordinator.model.operation import Json
from coordinator.operations import crons

command = noun("Crons: jobs that are enqueued on a schedule.")

COLUMNS = (
    "cron", "schedule", "zone", "next_at", "last_at", "paused_at", "error", "last_job", "job", "missed", "pause_reason", "paused_by", "actor",
)  # fmt: skip

_cron = click.argument("cron", metavar="NAME")


@command.verb(
    name="set",
    examples=[
        "coordinator cron set nightly '0 2 * * *' report '{\"day\": \"{fire_at}\"}' --zone Europe/Berlin",
        "coordinator cron set sweep '*/5 * * * *' sweep --queue ops --missed skip",
        'coordinator cron set sync @hourly --job \'{"type": "sync", "dedupe_key": "sync", "on_duplicate": "skip"}\'',
        "coordinator cron set nightly '30 2 * * *'     # the job stays as it is",
    ],
)
@_cron
@click.argument("schedule", required=False)
@click.argument("type", required=False)
@click.argument("payload", metavar="[JSON]", required=False)
@click.option("-q", "--queue", metavar="NAME", help="Queue of the jobs.  [default: default]")
@click.option(
    "--job", type=OBJECT, metavar="JSON", help="Other fields of the job, as in a line of job enqueue --lines."
)
@click.option("--zone", metavar="ZONE", help="Time zone of the schedule, such as Europe/Berlin.  [default: UTC]")
@click.option(
    "--missed", metavar="skip|once|all", help="For times when no daemon ran: skip them, run once, or run once for each."
)
@click.pass_obj
def set_(
    call: Invocation,
    /,
    *,
    type: str | None,
    payload: str | None,
    queue: str | None,
    job: dict[str, Json] | None,
    **options: Any,
) -> None:
    """Create or change a cron. Omitted options keep their values.

    SCHEDULE is minute, hour, day, month and weekday, such as '30 8 * * mon-fri', or @hourly, @daily, @weekly, @monthly, @yearly. At each
    time, a job of TYPE with the payload JSON is enqueued. {fire_at} in any string of the job is replaced by the time.
    """
    fields: dict[str, Json] = dict(job or {})
    fields.update(given({"type": type, "queue": queue}))
    if payload is not None:
        fields["payload"] = read_json(read_text(payload), "JSON")
    cron = call.run(call.operation(crons.Set, job=fields or None, **options))
    call.output.one(
        cron,
        plain(
            f"{cron.cron} fires next at {cron.next_at:%Y-%m-%d %H:%M}Z" if cron.next_at else f"{cron.cron} is paused"
        ),
    )


@command.verb(examples=["coordinator cron delete nightly"])
@_cron
@click.pass_obj
def delete(call: Invocation, *, cron: str) -> None:
    """Delete a cron, but not the jobs that it enqueued."""
    call.run(call.operation(crons.Delete, cron=cron))
    call.output.one({"cron": cron, "deleted": True}, f"deleted {plain(cron)}")


@command.verb(examples=["coordinator cron pause nightly --reason 'The source is down'"])
@_cron
@click.option("--reason", metavar="TEXT", help="Reason.")
@click.pass_obj
def pause(call: Invocation, *, cron: str, reason: str | None) -> None:
    """Pause a cron. Times during the pause do not count as missed."""
    call.output.one(call.run(call.operation(crons.Pause, cron=cron, reason=reason)), f"paused {plain(cron)}")


@command.verb(examples=["coordinator cron resume nightly"])
@_cron
@click.pass_obj
def resume(call: Invocation, *, cron: str) -> None:
    """Resume a paused cron."""
    resumed = call.run(call.operation(crons.Resume, cron=cron))
    call.output.one(resumed, plain(f"{cron} fires next at {resumed.next_at:%Y-%m-%d %H:%M}Z"))


@command.verb(examples=["job=$(coordinator cron run nightly --output text)"])
@_cron
@click.pass_obj
def run(call: Invocation, *, cron: str) -> None:
    """Enqueue the job of a cron now, and print its id.

    This also works for a paused cron. The schedule does not change.
    """
    receipt = call.run(call.operation(crons.Run, cron=cron))
    call.output.one(receipt, str(receipt.id))


@command.verb(examples=["coordinator cron get nightly"])
@_cron
@click.pass_obj
def get(call: Invocation, *, cron: str) -> None:
    """Show a cron. Exit code 3: it does not exist."""
    call.output.one(call.run(crons.Get(project=call.project, cron=cron)))


@command.verb(examples=["coordinator cron list", "coordinator cron list | jq '.[] | select(.error)'"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the crons, by name."""
    call.list(crons.List(project=call.project), COLUMNS, after=after, limit=limit, empty="There are no crons.")


@command.verb(
    examples=[
        "coordinator cron preview '30 8 * * mon-fri' --zone Europe/Berlin",
        "coordinator cron preview @monthly --limit 12",
    ]
)
@click.argument("schedule")
@click.option("--zone", metavar="ZONE", help="Time zone of the schedule.  [default: UTC]")
@click.option("--since", type=INSTANT, metavar="TIME", help="Start at this time: 2030-01-31T14:00Z.  [default: now]")
@click.option("--limit", type=INTEGER, metavar="N", help="Number of times to print.  [default: 5]")
@click.pass_obj
def preview(call: Invocation, /, *, schedule: str, **options: Any) -> None:
    """Print the next times of a schedule."""
    operation = crons.Preview(schedule=schedule, **given(options))
    call.output.many(call.run(operation), ("at", "local"), empty="")
