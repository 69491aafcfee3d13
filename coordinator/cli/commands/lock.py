"""``coordinator lock``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click
from msgspec.structs import replace

from coordinator.cli.command import CommandVerb, acting_agent, noun, paged, setting
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import AGENT, DURATION, ID, INTEGER, PATH, RESOURCE
from coordinator.errors import Conflict
from coordinator.model.agent_ref import AgentRef
from coordinator.model.operation import Operation
from coordinator.operations import locks

command = noun("Locks: fenced leases over files, names and slots.")

COLUMNS = (
    "resource", "agent", "mode", "fencing_token", "expires_at", "acquired_at", "agent_id", "slot", "slots", "owner",
    "job",
)  # fmt: skip

_resources = click.argument("resources", metavar="RESOURCE…", nargs=-1, required=True, type=RESOURCE)
_resource = click.argument("resource", type=RESOURCE)
_rooted = [setting("root", "--root")]
_agent = acting_agent(help="Agent that holds the locks.")
_owner = click.option(
    "--owner",
    metavar="NAME",
    help="Owner below the agent, such as session/part.  [default: COORDINATOR_LOCK_OWNER, or the agent itself]",
)
_shared = click.option("--shared", is_flag=True, help="Share the locks with other shared locks.")
_slots = click.option("--slots", type=INTEGER, metavar="N", help="Take one of N slots of a name, such as name:gpu.")
_ttl = click.option(
    "--ttl", type=DURATION, default="30s", show_default=True, help="Expire the locks after this long, unless renewed."
)
_wait = click.option("--wait", type=DURATION, help="Wait at most this long, then exit with 8.  [default: no wait]")
_tokens = click.option(
    "--token",
    "tokens",
    type=INTEGER,
    multiple=True,
    required=True,
    metavar="N",
    help="Fencing token of all locks, or one for each, in order.",
)


@command.verb(
    examples=[
        'token=$(coordinator lock acquire src/app.py --agent "$id" --output text)',
        'coordinator lock acquire src/ docs/index.md --agent "$id" --ttl 5m --wait 1m',
        'coordinator lock acquire "src/**/*.py" --agent "$id" --shared',
        'coordinator lock acquire name:gpu --agent "$id" --slots 4',
    ],
    settings=_rooted,
)
@_resources
@_agent
@_shared
@_slots
@_ttl
@_wait
@click.option(
    "--delay",
    type=DURATION,
    default="0s",
    show_default=True,
    help="Keep them locked for this long after they expire or are broken.",
)
@click.option("--request-id", type=ID, metavar="UUID", help="Id of the request; a repetition gets the same response.")
@_owner
@click.pass_obj
def acquire(call: Invocation, /, *, wait: timedelta | None, owner: str | None, **options: Any) -> None:
    """Acquire locks atomically, and print the fencing token.

    A RESOURCE is a path (src/app.py), a directory and everything below it (src/), a glob (src/**/*.py) or a name
    (name:deploy). Paths are relative to the current directory, and locked as paths from the root. The name of an existing
    file is not a glob; path:app/[id]/new.ts takes any path literally. Exit code 4: another agent holds one; the message names it.

    Owners of one agent exclude each other; session/part may use what session and the agent hold. A named owner releases a
    lock as often as it acquired it.
    """
    owner = (call.config.lock_owner or "") if owner is None else owner
    request = call.operation(locks.Acquire, wait=wait, owner=owner, **options)
    if wait is None:
        grants = call.run(request)
    else:
        from coordinator.cli import lock_run  # noqa: PLC0415

        grants = lock_run.acquire(call, request)
    if len({grant.fencing_token for grant in grants}) == 1 and not call.output.json:
        call.output.line(str(grants[0].fencing_token))
    else:
        call.output.many(grants, ("fencing_token", "resource", "expires_at"), empty="")


def _run_on_held(call: Invocation, operation: locks.Renew | locks.Release) -> Any:
    """Run an operation on held locks. A path may have become a directory since it was locked, or the reverse."""
    request: Operation[Any] = operation
    try:
        return call.run(request)
    except Conflict:
        held = {lock.resource for lock in call.run(locks.List(project=call.project, agent=operation.agent))}
        other = {name: name.removesuffix("/") if name.endswith("/") else f"{name}/" for name in operation.resources}
        found = [other[name] if name not in held and other[name] in held else name for name in operation.resources]
        if found == operation.resources:
            raise
        request = replace(operation, resources=found)
        return call.run(request)


@command.verb(examples=['coordinator lock renew src/app.py --agent "$id" --token 42'], settings=_rooted)
@_resources
@_agent
@_tokens
@click.option("--ttl", type=DURATION, help="New TTL.  [default: that of the acquisition]")
@click.pass_obj
def renew(call: Invocation, /, **options: Any) -> None:
    """Extend locks by their TTL, all or none. Exit code 4: one is lost; the message names its holder."""
    renewals = _run_on_held(call, call.operation(locks.Renew, **options))
    call.output.many(renewals, ("resource", "fencing_token", "expires_at"), empty="")


@command.verb(examples=['coordinator lock release src/app.py --agent "$id" --token 42'], settings=_rooted)
@_resources
@_agent
@_tokens
@click.option("--request-id", type=ID, metavar="UUID", help="Release only what this request acquired.")
@click.pass_obj
def release(call: Invocation, /, **options: Any) -> None:
    """Release locks, all or none. Exit code 4: one was already lost."""
    count = _run_on_held(call, call.operation(locks.Release, **options))
    call.output.one({"released": count}, f"released {count}")


@command.verb(
    name="break",
    examples=[
        "coordinator lock break src/app.py --reason 'The agent hangs'",
        "coordinator lock break name:gpu --token 17 --reason 'Out of memory' --delay 1m",
    ],
    settings=_rooted,
)
@_resource
@click.option("--reason", required=True, metavar="TEXT", help="Reason, for the holder and the audit trail.")
@click.option("--agent", type=AGENT, metavar="ID|NAME", help="Break it only if this agent holds it.")
@click.option("--token", type=INTEGER, metavar="N", help="Break only the lock with this fencing token.")
@click.option("--delay", type=DURATION, help="Keep it locked for this long.")
@click.pass_obj
def break_(call: Invocation, /, *, resource: str, **options: Any) -> None:
    """Take a lock from its holders. They get an event, and their fencing tokens become invalid."""
    count = call.run(call.operation(locks.Break, resource=resource, **options))
    call.output.one({"resource": resource, "broken": count}, f"broke {plain(resource)}; holders: {count}")


@command.verb(examples=["coordinator lock resize name:gpu --slots 8"], settings=_rooted)
@_resource
@click.option("--slots", type=INTEGER, required=True, metavar="N", help="New number of slots.")
@click.pass_obj
def resize(call: Invocation, /, *, resource: str, slots: int) -> None:
    """Change the number of slots of a counted lock while it is held. Holders keep theirs."""
    before = call.run(call.operation(locks.Resize, resource=resource, slots=slots))
    call.output.one(
        {"resource": resource, "slots": slots, "before": before}, f"{plain(resource)}: {slots} slots, before {before}"
    )


@command.verb(
    examples=["coordinator lock list", "coordinator lock list --under src/ | jq -r '.[].agent'"], settings=_rooted
)
@click.option("--under", metavar="PATH", type=RESOURCE, help="List only locks that overlap this directory.")
@click.option("--agent", type=AGENT, metavar="ID|NAME", help="List only locks of this agent.")
@paged
@click.pass_obj
def list_(call: Invocation, *, under: str | None, agent: AgentRef | None, after: str | None, limit: int | None) -> None:
    """List the locks."""
    operation = locks.List(project=call.project, under=under, agent=agent)
    call.list(operation, COLUMNS, after=after, limit=limit, empty="Nothing is locked.")


@command.verb(examples=["coordinator lock show src/app.py"], settings=_rooted)
@_resource
@click.pass_obj
def show(call: Invocation, *, resource: str) -> None:
    """Show the locks that overlap a resource. Exit code 3: there are none."""
    call.output.many(call.run(locks.Show(project=call.project, resource=resource)), COLUMNS, empty="")


@command.verb(examples=["coordinator lock waiting src/app.py"], settings=_rooted)
@_resource
@paged
@click.pass_obj
def waiting(call: Invocation, *, resource: str, after: str | None, limit: int | None) -> None:
    """List the agents that wait, in order. They wait for the resource, or for one that overlaps it."""
    call.list(
        locks.ListWaiting(project=call.project, resource=resource),
        ("ticket", "resource", "agent", "mode", "enqueued_at", "expires_at", "agent_id"),
        after=after,
        limit=limit,
        empty="No agent waits.",
    )


@command.verb(examples=["coordinator lock chains"])
@click.pass_obj
def chains(call: Invocation) -> None:
    """List who waits for whom, for the oldest 200 requests. "coordinator top" shows the chains live."""
    found = call.run(locks.Chains(project=call.project))
    columns = ("ticket", "agent", "resource", "for_agent", "for_resource", "for_ticket", "owner", "for_owner")
    call.output.many(found, columns, empty="No agent waits.")


@command.verb(
    examples=[
        "coordinator lock check src/app.py --agent coder-1",
        "hg status --no-status --print0 | coordinator lock check --stdin0     # for git: coordinator hook git install",
    ],
    settings=_rooted,
)
@click.argument("paths", metavar="PATH…", nargs=-1, type=PATH)
@acting_agent(help="Agent whose own locks do not count.", type=click.STRING, metavar="ID|NAME", required=False)
@click.option("--stdin0", is_flag=True, help="Read paths from standard input, each ended by NUL.")
@click.pass_obj
def check(call: Invocation, *, paths: tuple[str, ...], agent: str | None, stdin0: bool) -> None:
    """Check whether another agent has locked a path.

    Paths are taken literally. Those from standard input are relative to the root, as git prints them.
    Exit code 0: no; 4: at least one path is locked by another agent; 7: the database does not respond. The check changes
    nothing.
    """
    if not paths and not stdin0:
        raise click.UsageError("give a PATH, or --stdin0")
    from coordinator.cli import lock_check  # noqa: PLC0415

    lock_check.check(call, [*paths, *(lock_check.read_paths(call.config) if stdin0 else ())], agent)


@command.command(
    "run",
    cls=CommandVerb,
    examples=[
        "coordinator lock run src/ -- make test",
        "coordinator lock run name:deploy --wait 10m -- ./deploy.sh production",
        "coordinator lock run name:gpu --slots 4 --wait 1h --as trainer -- python train.py",
    ],
    settings=_rooted,
)
@_resources
@_shared
@_slots
@_ttl
@_wait
@click.option(
    "--grace", type=DURATION, default="10s", show_default=True, help="Time from SIGTERM to SIGKILL if a lock is lost."
)
@click.option("--as", "name", metavar="NAME", help="Name of the agent that holds the locks.")
@click.pass_obj
@click.pass_context
def run(
    ctx: click.Context,
    call: Invocation,
    *,
    resources: tuple[str, ...],
    shared: bool,
    slots: int | None,
    ttl: timedelta,
    wait: timedelta | None,
    grace: timedelta,
    name: str | None,
) -> int:
    """Run a command while holding locks, and exit with its exit code.

    The locks are renewed until the command ends. If a lock is lost, the command is killed (exit code 4). The environment of the command
    has the fencing token in COORDINATOR_FENCING_TOKEN (by resource: COORDINATOR_FENCING_TOKENS), the agent in COORDINATOR_AGENT_ID and
    the owner in COORDINATOR_LOCK_OWNER. A nested "lock run" can lock the same resources again, as a part of this owner.
    """
    from coordinator.cli.lock_run import LockRun  # noqa: PLC0415

    return LockRun(call, name, CommandVerb.words(ctx), grace).run(
        resources, ttl=ttl, wait=wait, shared=shared, slots=slots
    )
