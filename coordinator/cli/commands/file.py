"""``coordinator file``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import DURATION, OBJECT
from coordinator.model.file import FileState, FileStep
from coordinator.operations import files

command = noun("Files that agents edit: leases, and what each agent has seen.")

_AGENT = click.argument("agent")
_PATHS = click.argument("paths", metavar="PATH…", nargs=-1, required=True)
_HASH = click.option(
    "--hash",
    "hashes",
    metavar="HASH",
    multiple=True,
    help="Hash of each path's content, in their order; -: no such file.",
)
_OWNER = click.option("--owner", metavar="OWNER", default="", help="Owner below the agent, such as session/subagent.")
_METADATA = click.option(
    "--metadata",
    type=OBJECT,
    metavar="JSON",
    help="Object to combine with the agent's metadata; - reads standard input.",
)


def _ttl(function: Any) -> Any:
    return click.option(
        "--ttl",
        type=DURATION,
        default="10m",
        show_default=True,
        help="Keep agent and leases for this long after each call.",
    )(function)


@command.verb(
    examples=[
        "coordinator file edit coder-1 src/a.py src/b.py",
        'coordinator file edit coder-1 src/a.py --hash "$(sha256sum < src/a.py | cut -c 1-64)" --wait 30s',
    ]
)
@_AGENT
@_PATHS
@_HASH
@_OWNER
@_ttl
@click.option(
    "--wait", type=DURATION, metavar="DURATION", help="If a file is not free, stay in the queue for this long."
)
@click.option("--shared", is_flag=True, help="Share the files with other readers.")
@click.option(
    "--told", is_flag=True, help="Accept a change that an earlier call reported, even without a recorded read."
)
@_METADATA
@click.pass_obj
def edit(call: Invocation, /, **options: Any) -> int:
    """Lease files for an edit, all or none.

    With hashes, the files are compared with what AGENT last saw. Exit code 4: somebody else holds a file, or it has changed since then.
    """
    grants = call.run(call.operation(files.Edit, **options))
    call.output.many(
        grants, ("path", "state", "holder", "held_until", "changed_by", "expires_at", "ticket"), empty="No files."
    )
    return 0 if all(grant.state == FileState.GRANTED for grant in grants) else 4


@command.verb(
    examples=['coordinator file record coder-1 src/a.py --step written --hash "$(sha256sum < src/a.py | cut -c 1-64)"']
)
@_AGENT
@_PATHS
@_HASH
@click.option(
    "--step",
    type=click.Choice([step.value for step in FileStep]),
    default=FileStep.READ.value,
    show_default=True,
    help="Record before a read, after it, or after a write.",
)
@_OWNER
@_ttl
@_METADATA
@click.pass_obj
def record(call: Invocation, /, *, step: str, **options: Any) -> None:
    """Record the content of files that AGENT sees."""
    count = call.run(call.operation(files.Record, step=FileStep(step), **options))
    call.output.one({"recorded": count}, f"recorded {count}")


@command.verb(examples=["coordinator file leave coder-1", "coordinator file leave coder-1 --path src/a.py"])
@_AGENT
@_OWNER
@click.option("--path", "paths", metavar="PATH", multiple=True, help="Release only this; repeat it for several.")
@click.option("--end", is_flag=True, help="Also deregister the agent.")
@click.option(
    "--heir", metavar="OWNER", help="Owner that keeps the exclusive locks on files: --owner, or one above it."
)
@click.pass_obj
def leave(call: Invocation, *, agent: str, owner: str, paths: tuple[str, ...], end: bool, heir: str | None) -> None:
    """Release everything that AGENT, or one of its owners, holds."""
    count = call.run(call.operation(files.Leave, agent=agent, owner=owner, paths=paths or None, end=end, heir=heir))
    call.output.one({"agent": agent, "released": count}, f"released {count} of {plain(agent)}")


@command.verb(examples=["coordinator file list", "coordinator file list coder-1"])
@click.argument("agent", required=False)
@paged
@click.pass_obj
def list_(call: Invocation, *, agent: str | None, after: str | None, limit: int | None) -> None:
    """List which versions of files the agents, or only AGENT, have seen."""
    call.list(
        files.List(project=call.project, agent=agent),
        ("path", "agent", "owner", "seen_at", "wrote_at", "hash"),
        after=after,
        limit=limit,
        empty="No files were seen.",
    )
