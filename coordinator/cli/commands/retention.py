"""``coordinator retention``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import DURATION, INTEGER
from coordinator.model import duration
from coordinator.model.retention import RetentionPolicy
from coordinator.operations import retentions

command = noun("Retention: what is kept, and for how long.")

COLUMNS = ("subject", "kind", "max_age", "max_count", "project", "actor", "updated_at")

_subject = click.argument("subject", metavar="log|document|session|artifact")
_kind = click.argument("kind", default="*", metavar="[KIND]")
_everywhere = click.option("--everywhere", is_flag=True, help="In all projects without their own policy.")


@command.verb(
    name="set",
    examples=[
        "coordinator retention set log observation --max-age 14d --max-count 50000",
        "coordinator retention set log build-output --max-age 1d",
        "coordinator retention set document todo --max-age 30d --max-count 100",
        "coordinator retention set session --max-age 365d --everywhere",
        "coordinator retention set artifact --max-age 30d",
        "coordinator retention set log step     # keep everything",
    ],
)
@_subject
@_kind
@click.option("--max-age", type=DURATION, metavar="DURATION", help="Keep items younger than this.  [default: any age]")
@click.option(
    "--max-count", type=INTEGER, metavar="N", help="Keep the newest N entries, or versions.  [default: any number]"
)
@_everywhere
@click.pass_obj
def set_(call: Invocation, /, **options: Any) -> None:
    """Set how much of a kind is kept, and for how long.

    The age is the age of a log entry, or the time since a document was deleted, a session was last active, or an artifact without a
    session was stored. Kept items stay. Without KIND, the policy applies to kinds without their own policy.
    """
    policy = call.run(call.operation(retentions.Set, **options))
    call.output.one(policy, _sentence(policy))


@command.verb(
    examples=["coordinator retention reset log observation", "coordinator retention reset session --everywhere"]
)
@_subject
@_kind
@_everywhere
@click.pass_obj
def reset(call: Invocation, /, **options: Any) -> None:
    """Remove the policy of the project.

    The policy for all projects then applies. With --everywhere, reset the policy for all projects to its default.
    """
    policy = call.run(call.operation(retentions.Reset, **options))
    call.output.one(policy, _sentence(policy))


@command.verb(examples=["coordinator retention show"])
@paged
@click.pass_obj
def show(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the policies of the project, by subject and kind.

    Those without a project apply to all projects.
    """
    call.list(retentions.Show(project=call.project), COLUMNS, after=after, limit=limit, empty="There are no policies.")


@command.verb(examples=["coordinator retention run --dry-run", "coordinator retention run"])
@click.option("--dry-run", is_flag=True, help="Show what would be removed and why, but remove nothing.")
@paged
@click.pass_obj
def run(call: Invocation, *, dry_run: bool, after: str | None, limit: int | None) -> None:
    """Apply the retention policies now, instead of when they are due.

    The leading daemon does so in paced batches. With --dry-run, list what would be removed, by subject, kind and reason: the exceeded
    bound, or ttl for expired documents.
    """
    if dry_run:
        columns = ("subject", "kind", "reason", "removed", "count", "oldest_at", "project")
        plan = retentions.Preview(project=call.project)
        call.list(
            plan, columns, after=after, limit=limit, empty="Nothing is beyond the bounds: nothing would be removed."
        )
        return
    call.run(call.operation(retentions.Run))
    call.output.one(
        {"project": call.project, "running": True},
        plain(f"the leading daemon removes what is beyond the bounds in {call.project} now"),
    )


def _sentence(policy: RetentionPolicy) -> str:
    of = policy.subject if policy.kind == "*" else f"{policy.subject} {policy.kind}"
    bounds = []
    if policy.max_age is not None:
        bounds.append(f"for {duration.written(policy.max_age)}")
    if policy.max_count is not None:
        bounds.append(f"the newest {policy.max_count}")
    return plain(f"{of}: kept {', '.join(bounds) or 'without a bound'}")
