"""``coordinator audit``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import counted, plain
from coordinator.cli.values import INSTANT
from coordinator.errors import InvalidArgument
from coordinator.model.audit import AuditEntry, AuditHead
from coordinator.operations import audits
from coordinator.operations.executor import Executor

command = noun("Audits: who did what, when, and from where.")

_filters = (
    click.option("--by", "actors", multiple=True, metavar="NAME", help="Only actions of this actor; repeatable."),
    click.option(
        "--topic",
        "topics",
        multiple=True,
        metavar="TOPIC",
        help="Only these topics: token.created, token.*; repeatable.",
    ),
    click.option("--since", type=INSTANT, metavar="TIME", help="Only entries from this time on: 2030-01-31T14:00Z."),
    click.option("--until", type=INSTANT, metavar="TIME", help="Only entries before this time."),
)
_gone = click.option("--gone", is_flag=True, help="The trail of projects that do not exist or were deleted.")


def _filtered(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_filters):
        function = option(function)
    return function


def _entries(
    call: Invocation, *, actors: tuple[str, ...], topics: tuple[str, ...], gone: bool, **period: Any
) -> audits.List:
    project = None if gone else call.project
    return audits.List(project=project, actors=[*actors] or None, topics=[*topics] or None, **period)


class _Row(msgspec.Struct, frozen=True):
    """An entry as people read it."""

    seq: int
    at: datetime | None
    type: str
    key: str | None
    actor: str | None
    source: str
    role: str | None
    data: str


@command.verb(
    examples=[
        "coordinator audit list",
        "coordinator audit list --topic 'token.*' --since 2030-01-31",
        "coordinator audit list --by ann | jq -c '.[].entry.origin'",
        "coordinator audit list --gone     # such as the deletion of a project",
    ]
)
@_filtered
@_gone
@paged
@click.pass_obj
def list_(call: Invocation, /, *, after: str | None, limit: int | None, **options: Any) -> None:
    """List the audit trail, in order."""
    rows = call.read(_entries(call, **options), after=after, limit=limit)
    if call.output.json:
        call.output.many(rows, (), empty="")
    else:
        columns = ("seq", "at", "type", "key", "actor", "source", "role", "data")
        call.output.many([_row(entry) for entry in rows], columns, empty="Nothing was audited.")
    call.more(rows)


@command.verb(
    examples=[
        "coordinator audit export > audit.jsonl",
        "coordinator audit export --since 2030-01-01 --until 2030-02-01 | gzip > january.jsonl.gz",
    ]
)
@_filtered
@_gone
@click.pass_obj
def export(call: Invocation, /, **options: Any) -> None:
    """Write the audit trail as JSON Lines.

    Each line has the hash, and the entry exactly as it was hashed. Anyone can verify an export without filters: see docs/audit.md.
    """
    operation = _entries(call, **options)

    async def pages(executor: Executor) -> None:
        after: list[str] | None = None
        while entries := await executor.run(msgspec.structs.replace(operation, after=after)):
            await call.output.lines(_line(entry) for entry in entries)
            after = [str(entries[-1].seq)]

    call.through(pages)


@command.verb(examples=["coordinator audit show", "coordinator audit show | jq .behind"])
@_gone
@click.pass_obj
def show(call: Invocation, *, gone: bool) -> None:
    """Show which events are audited, and the ends of the trail.

    Also show how many events have not been copied yet.
    """
    call.output.one(call.run(audits.Show(project=None if gone else call.project)))


@command.verb(
    examples=[
        "coordinator audit head > head.json     # keep it where nobody who can change the database can change it",
        "coordinator audit head | gpg --clearsign > head.asc",
    ]
)
@_gone
@click.pass_obj
def head(call: Invocation, *, gone: bool) -> None:
    """Print the number and the hash of the newest entry.

    They prove the content of all entries up to this one.
    """
    call.output.one(call.run(audits.Show(project=None if gone else call.project)).head)


@command.verb(
    examples=["coordinator audit verify", "coordinator audit verify --head head.json     # one that was kept elsewhere"]
)
@click.option(
    "--head",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A head that the trail must contain; -: from standard input.",
)
@_gone
@click.pass_obj
def verify(call: Invocation, *, path: Path | None, gone: bool) -> None:
    """Compute the hashes of the trail again.

    Exit code 4: an entry was changed, removed, inserted or moved, or the trail does not contain the head.
    """
    from coordinator.operations.audit_chain import verified  # noqa: PLC0415

    kept = None if path is None else _read_head(path)
    shown = sys.stderr.isatty()

    def tell(checked: int, count: int) -> None:
        sys.stderr.write(f"\r{checked} of {max(checked, count)} entries")

    project = None if gone else call.project
    try:
        result = call.through(lambda executor: verified(executor.run, project, kept, tell if shown else None))
    finally:
        if shown:
            sys.stderr.write("\n")
    text = f"{counted(result.checked, 'entry', 'entries')} intact, up to entry {result.head.seq}"
    call.output.one(
        {"checked": result.checked, "unchained": result.unchained, **msgspec.structs.asdict(result.head)}, text
    )


@command.verb(
    name="set",
    examples=[
        "coordinator audit set 'lock.*' 'token.*' 'directive.*'",
        "coordinator audit set '*'     # everything, which doubles what the database writes",
        "coordinator audit set     # nothing but audit.*",
    ],
)
@click.argument("topics", metavar="[TOPIC ...]", nargs=-1)
@click.pass_obj
def set_(call: Invocation, *, topics: tuple[str, ...]) -> None:
    """Choose which events of the project are audited.

    This replaces the previous choice. audit.* is always audited.
    """
    state = call.run(call.operation(audits.Set, topics=topics))
    call.output.one(state, f"audited: {plain(', '.join(state.topics)) or 'only audit.*'}")


@command.verb(examples=["coordinator audit reset"])
@click.pass_obj
def reset(call: Invocation) -> None:
    """Reset the audited events to the default."""
    state = call.run(call.operation(audits.Reset))
    call.output.one(state, f"audited: {plain(', '.join(state.topics))}")


def _line(entry: AuditEntry) -> str:
    """Return the line of an export: what was hashed begins at byte 86, and ends before the last one."""
    shown = "null" if entry.hash is None else f'"{entry.hash}"'
    return f'{{"hash": {shown}, "entry": {bytes(entry.text).decode()}}}'


def _row(entry: AuditEntry) -> _Row:
    data = entry.data
    event = data.get("event") or {}
    origin = data.get("origin") or {}
    special = next((name for name in ("pruned", "lost", "action") if name in data), "")
    at = event.get("at")
    source = origin.get("loop") or " ".join(
        str(part) for part in (origin.get("name"), origin.get("address") or data.get("address")) if part
    )
    return _Row(
        entry.seq,
        None if at is None else datetime.fromisoformat(at),
        event.get("type") or special,
        event.get("key"),
        event.get("actor"),
        source,
        data.get("role"),
        msgspec.json.encode(event.get("data", data.get(special))).decode(),
    )


def _read_head(path: Path) -> AuditHead:
    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return msgspec.json.decode(text, type=AuditHead)
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidArgument(
            f"{path} is not a head: {error}", hint='Give what "coordinator audit head" has printed.', code="ZC105"
        ) from None
