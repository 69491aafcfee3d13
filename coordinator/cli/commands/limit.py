"""``coordinator limit``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click
import msgspec

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.cli.values import DURATION, INTEGER, JOB, NUMBER
from coordinator.operations import limits

command = noun("Limits: how many jobs run, how often, and at what cost.")

COLUMNS = (
    "name", "kind", "used", "free", "slots", "rate", "per", "burst", "budget", "period", "queue", "type", "per_key", "tree", "held_until",
    "waiting_count", "resets_at", "hold_reason", "held_by", "users", "keys", "reserve", "on_exhausted", "actor", "updated_at",
)  # fmt: skip


class LimitUser(msgspec.Struct):
    """What the running jobs of a type and key take of a limit."""

    type: str
    key: str | None
    used: int


class LimitKey(msgspec.Struct):
    """What a key has left of a limit."""

    key: str
    free: int


@command.verb(
    name="set",
    examples=[
        "coordinator limit set builds --slots 8 --queue builds     # 8 jobs of the queue run at once",
        "coordinator limit set per-customer --slots 2 --queue builds --per-key",
        'coordinator limit set review --slots 4 --tree "$id"        # of a job and all jobs below it',
        'coordinator limit set review-dollars --budget 5000000 --reserve 20000 --tree "$id"',
        "coordinator limit set openai --rate 500 --per 1m --burst 50",
        "coordinator limit set dollars --budget 5000000 --period day --reserve 20000 --on-exhausted cancel",
    ],
)
@click.argument("name")
@click.option("--slots", type=INTEGER, metavar="N", help="Maximum number of jobs that run at once.")
@click.option("--rate", type=NUMBER, metavar="N", help="Maximum number of jobs that start in each --per.")
@click.option("--per", type=DURATION, help="Interval of the rate.  [default: 1s]")
@click.option(
    "--burst", type=INTEGER, metavar="N", help="Maximum number of unused starts to save up.  [default: the rate]"
)
@click.option("--budget", type=INTEGER, metavar="N", help="Maximum cost of its jobs in each --period, in any unit.")
@click.option("--period", metavar="hour|day|ever", help="Period of the budget; hours and days are in UTC.")
@click.option("--reserve", type=INTEGER, metavar="N", help="Amount reserved for a job without a cost.  [default: 0]")
@click.option(
    "--on-exhausted",
    metavar="stop|cancel",
    help="When the budget is spent, start no more jobs, or also cancel running ones.  [default: stop]",
)
@click.option("--queue", metavar="NAME", help="Apply it to the jobs of this queue.")
@click.option("--type", metavar="TYPE", help="Apply it to the jobs of this type.")
@click.option("--per-key", is_flag=True, default=None, help="Apply it to each key separately.")
@click.option("--tree", type=JOB, metavar="ID", help="Apply it to this job and all jobs below it.")
@click.pass_obj
def set_(call: Invocation, /, **options: Any) -> None:
    """Set a limit, and create it if it does not exist.

    Give --slots, --rate or --budget. Omitted options keep their values. Without --queue and --type, the limit applies to jobs that name
    it: "coordinator job enqueue --limit NAME=COST". With --tree, it ends with the last job of the tree. The tree and the kind cannot be
    changed later.
    """
    call.output.one(call.run(call.operation(limits.Set, **options)))


@command.verb(examples=["coordinator limit show openai"])
@click.argument("name")
@click.pass_obj
def show(call: Invocation, *, name: str) -> None:
    """Show a limit, and how much of it is used and free.

    Also shows who uses most, how many jobs wait, and until when it is held. Exit code 3: it does not exist.
    """
    found = call.run(limits.Show(project=call.project, name=name))
    if call.output.json:
        call.output.one(found)
        return
    call.output.one(msgspec.structs.replace(found, users=[], keys=[]))
    if found.users:
        call.output.line("")
        call.output.many(msgspec.convert(found.users, list[LimitUser]), ("type", "key", "used"), empty="")
    if found.keys:
        call.output.line("")
        call.output.many(msgspec.convert(found.keys, list[LimitKey]), ("key", "free"), empty="")


@command.verb(examples=["coordinator limit list", "coordinator limit list -o json | jq '.[] | select(.free == 0)'"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the limits, by name."""
    call.list(limits.List(project=call.project), COLUMNS, after=after, limit=limit, empty="There are no limits.")


@command.verb(examples=["coordinator limit delete openai"])
@click.argument("name")
@click.pass_obj
def delete(call: Invocation, *, name: str) -> None:
    """Delete a limit. Jobs that name it start without it."""
    deleted = call.run(call.operation(limits.Delete, name=name))
    call.output.one(
        {"name": name, "deleted": deleted}, f"deleted {plain(name)}" if deleted else f"there is no limit {plain(name)}"
    )


@command.verb(examples=["coordinator limit hold openai --for 30s --reason 429"])
@click.argument("name")
@click.option("--for", "ttl", type=DURATION, required=True, help="Length of the hold, 1s to 366d.")
@click.option("--reason", metavar="TEXT", help="Reason, shown to people who ask why nothing starts.")
@click.pass_obj
def hold(call: Invocation, *, name: str, ttl: timedelta, reason: str | None) -> None:
    """Hold a limit: no worker gets a job that needs it. Running jobs continue.

    If the limit already has a longer hold, that one stays.
    """
    held = call.run(call.operation(limits.Hold, name=name, ttl=ttl, reason=reason))
    until = "" if held.held_until is None else f"; jobs start again {age(held.held_until)}"
    call.output.one(held, f"{plain(name)} is held{until}")


@command.verb(examples=["coordinator limit release openai"])
@click.argument("name")
@click.pass_obj
def release(call: Invocation, *, name: str) -> None:
    """End the hold of a limit."""
    call.output.one(call.run(call.operation(limits.Release, name=name)), f"{plain(name)} is not held")
