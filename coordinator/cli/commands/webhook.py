"""``coordinator webhook``."""

from __future__ import annotations

from datetime import datetime, timedelta

import click
from click.exceptions import Exit

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import DURATION, INSTANT, INTEGER
from coordinator.operations import webhooks

command = noun("Webhooks: events that the leading daemon sends to URLs.")

COLUMNS = (
    "webhook", "url", "topics", "status", "waiting_count", "dead_count", "delivered_at", "failing_since", "error", "paused_at", "pause_reason",
    "paused_by", "before_until", "actor", "created_at",
)  # fmt: skip
DELIVERIES = (
    "delivery", "type", "key", "status", "attempts", "response", "error", "at", "attempted_at", "due_at", "seconds", "message",
)  # fmt: skip

_webhook = click.argument("webhook", type=INTEGER, metavar="ID")
_topics = click.option("--topic", "topics", multiple=True, metavar="TOPIC", help="Type of events, such as lock.broken or signal.*; repeatable.")  # fmt: skip


@command.verb(
    examples=[
        "coordinator webhook add https://example.com/hook --topic lock.broken --topic 'job.*'",
        "SECRET=$(coordinator -o text webhook add https://example.com/hook --topic '*')",
    ]
)
@click.argument("address", metavar="URL")
@_topics
@click.option("--after", metavar="CURSOR", help="Start after this cursor of the log.  [default: now]")
@click.pass_obj
def add(call: Invocation, *, address: str, topics: tuple[str, ...], after: str | None) -> None:
    """Send events to a URL, and print the secret that signs them. It cannot be printed again.

    The leading daemon delivers them in order, each at least once. Private addresses are refused, unless the daemon's setting
    webhook_networks allows them.
    """
    made = call.run(call.operation(webhooks.Add, url=address, topics=topics, after=after))
    call.output.note(f"webhook {made.webhook}; its secret, shown only this once:")
    call.output.one(made, made.secret)


@command.verb(examples=["coordinator webhook list"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the webhooks, without their secrets."""
    call.list(webhooks.List(project=call.project), COLUMNS, after=after, limit=limit, empty="There are no webhooks.")


@command.verb(examples=["coordinator webhook show 3"])
@_webhook
@click.pass_obj
def show(call: Invocation, *, webhook: int) -> None:
    """Show a webhook, without its secret. Exit code 3: it does not exist."""
    call.output.one(call.run(webhooks.Show(project=call.project, webhook=webhook)))


@command.verb(examples=["coordinator webhook remove 3"])
@_webhook
@click.pass_obj
def remove(call: Invocation, *, webhook: int) -> None:
    """Remove a webhook, with its deliveries."""
    call.run(call.operation(webhooks.Remove, webhook=webhook))
    call.output.one({"webhook": webhook, "removed": True}, f"removed webhook {webhook}")


@command.verb(examples=["coordinator webhook pause 3 --reason 'The receiver is being moved'"])
@_webhook
@click.option("--reason", metavar="TEXT", help="Reason.")
@click.pass_obj
def pause(call: Invocation, *, webhook: int, reason: str | None) -> None:
    """Pause a webhook. Its events wait in the log."""
    paused = call.run(call.operation(webhooks.Pause, webhook=webhook, reason=reason))
    call.output.one(paused, f"paused webhook {webhook}")


@command.verb(examples=["coordinator webhook resume 3"])
@_webhook
@click.pass_obj
def resume(call: Invocation, *, webhook: int) -> None:
    """Resume a paused or disabled webhook. It continues where it stopped."""
    resumed = call.run(call.operation(webhooks.Resume, webhook=webhook))
    call.output.one(resumed, f"resumed webhook {webhook}")


@command.verb(
    examples=["coordinator webhook rotate 3", "coordinator webhook rotate 3 --overlap 0s     # the old secret leaked"]
)
@_webhook
@click.option(
    "--overlap",
    type=DURATION,
    default="1d",
    show_default=True,
    help="Also sign with the previous secret for this long, up to 30d.",
)
@click.pass_obj
def rotate(call: Invocation, *, webhook: int, overlap: timedelta) -> None:
    """Give a webhook a new secret, and print it. It cannot be printed again."""
    made = call.run(call.operation(webhooks.Rotate, webhook=webhook, overlap=overlap))
    call.output.note(f"the new secret of webhook {webhook}, shown only this once:")
    call.output.one(made, made.secret)


@command.verb(examples=["coordinator webhook test 3"])
@_webhook
@click.option(
    "--wait", type=DURATION, default="30s", show_default=True, help="Wait this long for the response; 0s: do not wait."
)
@click.pass_obj
def test(call: Invocation, *, webhook: int, wait: timedelta) -> None:
    """Deliver a test, and show the response. This also works for a paused webhook.

    Exit code 4: the delivery failed; 8: it did not end in time (only a leading daemon delivers).
    """
    sent = call.run(call.operation(webhooks.Test, webhook=webhook))
    if wait:
        sent = call.until_answered(
            webhooks.Delivery(project=call.project, delivery=sent.delivery), wait.total_seconds()
        )
    ended = {"delivered": f"delivered: the receiver responded with {sent.response}", "dead": f"failed: {sent.error}"}
    call.output.one(sent, plain(ended.get(sent.status, f"delivery {sent.delivery} waits")))
    if sent.status == "dead":
        raise Exit(4)


@command.verb(
    examples=["coordinator webhook deliveries 3 --limit 20", "coordinator webhook deliveries 3 --status dead"]
)
@_webhook
@click.option("--status", metavar="waiting|delivered|dead", help="Only those with this status.")
@paged
@click.pass_obj
def deliveries(call: Invocation, *, webhook: int, status: str | None, after: str | None, limit: int | None) -> None:
    """List deliveries of a webhook, newest first."""
    operation = webhooks.Deliveries(project=call.project, webhook=webhook, status=status)
    call.list(operation, DELIVERIES, after=after, limit=limit, empty="There are no deliveries.")


@command.verb(examples=["coordinator webhook delivery 71"])
@click.argument("delivery", type=INTEGER, metavar="ID")
@click.pass_obj
def delivery(call: Invocation, *, delivery: int) -> None:
    """Show a delivery. Exit code 3: there is none, or it is no longer kept."""
    call.output.one(call.run(webhooks.Delivery(project=call.project, delivery=delivery)))


@command.verb(
    examples=[
        "coordinator webhook redrive 3",
        "coordinator webhook redrive 3 --delivery 71",
        "coordinator webhook redrive 3 --topic 'job.*' --since 2030-01-31T14:00Z",
    ]
)
@_webhook
@click.option("--delivery", type=INTEGER, metavar="ID", help="Only this one.")
@_topics
@click.option("--since", type=INSTANT, metavar="TIME", help="Only events from this time on: 2030-01-31T14:00Z.")
@click.option("--until", type=INSTANT, metavar="TIME", help="Only events before this time.")
@click.pass_obj
def redrive(
    call: Invocation,
    *,
    webhook: int,
    delivery: int | None,
    topics: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Deliver dead deliveries again, with the same webhook-id. Without options, all dead deliveries of the webhook."""
    count = call.run(
        call.operation(
            webhooks.Redrive, webhook=webhook, delivery=delivery, topics=topics or None, since=since, until=until
        )
    )
    call.output.one({"webhook": webhook, "redriven": count}, f"{count} deliveries wait again")
