"""``coordinator lock``."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import click

from coordinator.cli.command import Verb, noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import DURATION, ID, INTEGER
from coordinator.operations import locks

command = noun("Locks: fenced leases over files, names and slots.")

COLUMNS = ("resource", "mode", "agent", "agent_id", "fencing_token", "slot", "slots", "acquired_at", "expires_at")

_resources = click.argument("resources", metavar="RESOURCE…", nargs=-1, required=True)
_agent = click.option("--agent", type=ID, required=True, metavar="ID", help="The agent that holds them.")
_shared = click.option("--shared", is_flag=True, help="Together with others that share.")
_slots = click.option("--slots", type=INTEGER, metavar="N", help="One of so many places of a name, as name:gpu.")
_ttl = click.option("--ttl", type=DURATION, default="30s", show_default=True, help="Ends after so long unless renewed.")
_wait = click.option("--wait", type=DURATION, help="Wait for them, so long at the most; else exit code 8.")
_tokens = click.option(
    "--token",
    "tokens",
    type=INTEGER,
    multiple=True,
    required=True,
    metavar="N",
    help="Of all, or one for each in order.",
)


@command.verb(
    examples=[
        'token=$(coordinator lock acquire src/app.py --agent "$id" --output text)',
        'coordinator lock acquire src/ docs/index.md --agent "$id" --ttl 5m --wait 1m     # all or none',
        'coordinator lock acquire "src/**/*.py" --agent "$id" --shared',
        'coordinator lock acquire name:gpu --agent "$id" --slots 4',
    ]
)
@_resources
@_agent
@_shared
@_slots
@_ttl
@_wait
@click.option(
    "--delay", type=DURATION, default="0s", help="Nobody gets them for so long after they expire or are broken."
)
@click.option("--request-id", type=ID, metavar="UUID", help="Asked again with it, the answer is the same.")
@click.pass_obj
def acquire(
    call: Invocation,
    *,
    resources: tuple[str, ...],
    agent: UUID,
    shared: bool,
    slots: int | None,
    ttl: timedelta,
    wait: timedelta | None,
    delay: timedelta,
    request_id: UUID | None,
) -> None:
    """Acquire locks for an agent, all or none, and print the fencing token.

    A RESOURCE is a path (src/app.py), a directory with all below it (src/), a glob (src/**/*.py) or a name (name:deploy).
    Exit code 4 says who has it.
    """
    request = locks.Acquire(
        project=call.project,
        resources=[*resources],
        agent=agent,
        shared=shared,
        slots=slots,
        ttl=ttl,
        wait=wait,
        delay=delay,
        request_id=request_id,
    )
    if wait is None:
        grants = call.run(request)
    else:
        from coordinator.cli import lock_run  # noqa: PLC0415

        grants = lock_run.acquire(call, request)
    if len({grant.fencing_token for grant in grants}) == 1 and not call.output.json:
        call.output.line(str(grants[0].fencing_token))
    else:
        call.output.many(grants, ("fencing_token", "resource", "expires_at"), empty="")


@command.verb(examples=['coordinator lock renew src/app.py --agent "$id" --token 42'])
@_resources
@_agent
@_tokens
@click.option("--ttl", type=DURATION, help="For another TTL than they were acquired with.")
@click.pass_obj
def renew(
    call: Invocation, *, resources: tuple[str, ...], agent: UUID, tokens: tuple[int, ...], ttl: timedelta | None
) -> None:
    """Keep locks for their TTL from now on, all or none; exit code 4 says that one is lost, and to whom."""
    renewals = call.run(
        locks.Renew(project=call.project, resources=[*resources], agent=agent, tokens=[*tokens], ttl=ttl)
    )
    call.output.many(renewals, ("resource", "fencing_token", "expires_at"), empty="")


@command.verb(examples=['coordinator lock release src/app.py --agent "$id" --token 42'])
@_resources
@_agent
@_tokens
@click.pass_obj
def release(call: Invocation, *, resources: tuple[str, ...], agent: UUID, tokens: tuple[int, ...]) -> None:
    """Give locks back, all or none; exit code 4 says that one was lost already."""
    count = call.run(locks.Release(project=call.project, resources=[*resources], agent=agent, tokens=[*tokens]))
    call.output.one({"released": count}, f"released {count}")


@command.verb(
    name="break",
    examples=[
        "coordinator lock break src/app.py --reason 'The agent hangs'",
        "coordinator lock break name:gpu --token 17 --reason 'Out of memory' --delay 1m",
    ],
)
@click.argument("resource")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for the loser and the audit trail.")
@click.option("--agent", type=ID, metavar="ID", help="Only if this agent holds it.")
@click.option("--token", type=INTEGER, metavar="N", help="Only the lock with this token.")
@click.option("--delay", type=DURATION, help="Nobody gets it for so long.")
@click.pass_obj
def break_(
    call: Invocation, *, resource: str, reason: str, agent: UUID | None, token: int | None, delay: timedelta | None
) -> None:
    """Take a lock from its holders; they are told, and their tokens are worth nothing any more."""
    count = call.run(
        locks.Break(
            project=call.project,
            resource=resource,
            reason=reason,
            agent=agent,
            token=token,
            delay=delay,
            actor=call.actor,
        )
    )
    call.output.one({"resource": resource, "broken": count}, f"broke {plain(resource)}, {count} held it")


@command.verb(examples=["coordinator lock list", "coordinator lock list --under src/ | jq -r '.[].agent'"])
@click.option("--under", metavar="PATH", help="Only what overlaps this directory.")
@click.option("--agent", type=ID, metavar="ID", help="Only what this agent holds.")
@paged
@click.pass_obj
def list_(call: Invocation, *, under: str | None, agent: UUID | None, after: str | None, limit: int | None) -> None:
    """List the locks that are held."""
    operation = locks.List(project=call.project, under=under, agent=agent)
    call.list(operation, COLUMNS, after=after, limit=limit, empty="Nothing is locked.")


@command.verb(examples=["coordinator lock show src/app.py"])
@click.argument("resource")
@click.pass_obj
def show(call: Invocation, *, resource: str) -> None:
    """Tell who holds a resource or what overlaps it; exit code 3: nobody."""
    call.output.many(call.run(locks.Show(project=call.project, resource=resource)), COLUMNS, empty="")


@command.verb(examples=["coordinator lock waiting src/app.py"])
@click.argument("resource")
@paged
@click.pass_obj
def waiting(call: Invocation, *, resource: str, after: str | None, limit: int | None) -> None:
    """List who waits for a resource or what overlaps it, in order."""
    call.list(
        locks.ListWaiting(project=call.project, resource=resource),
        ("ticket", "resource", "mode", "agent", "agent_id", "enqueued_at", "expires_at"),
        after=after,
        limit=limit,
        empty="Nobody waits.",
    )


@command.verb(
    examples=[
        "coordinator lock check src/app.py --agent coder-1",
        "git diff --cached --name-only -z | coordinator lock check --stdin0     # see examples/pre-commit",
    ]
)
@click.argument("paths", metavar="PATH…", nargs=-1)
@click.option("--agent", metavar="ID|NAME", help="What this agent holds is no hindrance.")
@click.option("--stdin0", is_flag=True, help="Read paths from standard input, a NUL after each.")
@click.pass_obj
def check(call: Invocation, *, paths: tuple[str, ...], agent: str | None, stdin0: bool) -> None:
    """Tell whether paths may be written: exit code 0 if they are free or the agent's own, 4 if others lock one.

    It changes nothing, and fails closed: without an answer from the database the exit code is 7.
    """
    if not paths and not stdin0:
        raise click.UsageError("give a PATH, or --stdin0")
    from coordinator.cli import lock_check  # noqa: PLC0415

    lock_check.check(call, [*paths, *(lock_check.read_paths() if stdin0 else ())], agent)


class _Run(Verb):
    """A verb whose line goes on with a command after ``--``, which is nobody's business here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[__name__] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- COMMAND [ARG]…"]


@command.command(
    "run",
    cls=_Run,
    examples=[
        "coordinator lock run src/ -- make test",
        "coordinator lock run name:deploy --wait 10m -- ./deploy.sh production",
        "coordinator lock run name:gpu --slots 4 --wait 1h --as trainer -- python train.py",
    ],
)
@_resources
@_shared
@_slots
@_ttl
@_wait
@click.option(
    "--grace", type=DURATION, default="10s", show_default=True, help="From SIGTERM to SIGKILL, if a lock is lost."
)
@click.option("--as", "name", metavar="NAME", help="Name of the agent that holds them meanwhile.")
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
    """Run a command while holding locks, and give them back when it ends; the exit code is its own.

    The locks are renewed meanwhile. If one is lost, the command is ended (exit code 4). It finds the fencing token in
    COORDINATOR_FENCING_TOKEN, by resource in COORDINATOR_FENCING_TOKENS, and its agent in COORDINATOR_AGENT_ID.
    """
    words: list[str] = ctx.meta[__name__]
    if not words:
        raise click.UsageError("give a command after --")
    from coordinator.cli.lock_run import Run  # noqa: PLC0415

    return Run(call, name, words, grace).run(resources, ttl=ttl, wait=wait, shared=shared, slots=slots)
