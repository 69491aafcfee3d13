"""``coordinator log``."""

from __future__ import annotations

import sys
from typing import Any

import click
from msgspec.structs import replace

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import counted, plain
from coordinator.cli.values import INSTANT, INTEGER, read_exact, read_text
from coordinator.errors import InvalidArgument, NotFound
from coordinator.model.json import text_of
from coordinator.model.log import LogEntry, LogReceipt, NewEntry
from coordinator.model.operation import JsonText
from coordinator.model.page import Page, after_last, place_of
from coordinator.operations import logs

command = noun("Logs: append-only lists of entries.")

COLUMNS = ("kind", "key", "count", "first_seq", "last_seq", "updated_at", "epoch", "kept")
ENTRY_COLUMNS = ("seq", "text", "role", "created_at", "actor", "tokens", "uid", "needs", "kept", "epoch")

GONE = "ZC218"


_kind = click.argument("kind")
_key = click.argument("key")
_expect = click.option(
    "--expect", type=INTEGER, metavar="SEQ", help="Only if this is the last number; 0: only if the log does not exist."
)
_epoch = click.option("--epoch", metavar="EPOCH", help="Only if the last number is from this epoch.")


def appended(receipt: LogReceipt, noun: str) -> str:
    """Return the text of an append: where the log is, or where its entry was already."""
    if not receipt.appended:
        return f"it is there already, as {noun} {receipt.last_seq}"
    return f"{plain(receipt.key)} is at {noun} {receipt.last_seq}"


@command.verb(
    examples=[
        'coordinator log append note run/7 \'{"text": "begun"}\'',
        "coordinator log append note run/7 begun built     # two entries, which are JSON strings",
        "coordinator log append note run/7 begun --uid run/7/begin     # a repetition does nothing",
        "coordinator log append note run/7 built --expect 3     # only if nothing follows entry 3",
        "coordinator log append note run/7 --entries - < entries.json",
    ]
)
@_kind
@_key
@click.argument("data", metavar="[DATA ...]", nargs=-1)
@click.option(
    "--entries",
    metavar="JSON",
    help='Entries with all their fields, such as [{"data": 1, "uid": "a"}]; -: from standard input.',
)
@click.option("--uid", metavar="NAME", help="Name of the entry: appending it again does nothing.")
@click.option("--role", metavar="NAME", help="Role of the author.  [default: the role in DATA]")
@click.option("--tokens", type=INTEGER, metavar="N", help="Number of model tokens.")
@click.option(
    "--needs",
    type=INTEGER,
    metavar="SEQ",
    help="Earliest entry that it needs; -1: the one before it.",
)
@_expect
@_epoch
@click.option(
    "--session",
    metavar="KEY",
    help="Session that a new log belongs to; the log's key is KEY, or starts with KEY and /.",
)
@click.option("--text", "form", flag_value="text", help="Take DATA as text, even if it is JSON.")
@click.option("--json", "form", flag_value="json", help="Reject DATA that is not JSON.")
@click.pass_obj
def append(
    call: Invocation,
    /,
    *,
    key: str,
    data: tuple[str, ...],
    entries: str | None,
    uid: str | None,
    role: str | None,
    tokens: int | None,
    needs: int | None,
    form: str | None,
    **options: Any,
) -> None:
    """Append entries to a log, all or none.

    The first append creates the log.

    DATA is JSON, which is stored byte for byte, or text. If it is "-", it is read from standard input.
    """
    if (entries is None) == (not data) or (len(data) != 1 and (uid, role, tokens, needs) != (None,) * 4):
        raise InvalidArgument(
            "give DATA or --entries, and further fields of an entry with a single DATA",
            hint="Of several entries, give the fields in --entries.",
            code="ZC105",
        )
    if entries is None:
        contents = [read_exact(read_text(one), form or "") for one in data]
        entries_text = text_of([NewEntry(content, uid, role, tokens, needs) for content in contents])
    else:
        entries_text = JsonText(read_text(entries).encode())
    receipt = call.run(call.operation(logs.Append, key=key, entries=entries_text, **options))
    call.output.one(receipt, appended(receipt, "entry"))


@command.verb(
    examples=[
        "coordinator log read note run/7",
        "coordinator log read note run/7 --last 20",
        "coordinator log read note run/7 --at 2030-01-31T14:00Z",
        "coordinator log read note run/7 --data | jq -r .text     # only the contents, one a line",
    ]
)
@_kind
@_key
@click.option("--before", type=INTEGER, metavar="SEQ", help="Read only entries with lower numbers.")
@click.option("--last", type=INTEGER, metavar="N", help="Read only the last N entries.")
@click.option(
    "--at", type=INSTANT, metavar="TIME", help="Read the entries that existed at this time: 2030-01-31T14:00Z."
)
@click.option("--data", "only_data", is_flag=True, help="Print only the contents, byte for byte.")
@paged
@click.pass_obj
def read(call: Invocation, /, *, only_data: bool, after: str | None, limit: int | None, **options: Any) -> None:
    """Read entries of a log. Exit code 3: the log does not exist.

    --after also takes the number of an entry, such as 12, or with its epoch, 1a2b3c4d.12.
    """
    operation = logs.Read(project=call.project, **options)
    if not only_data:
        call.list(operation, ENTRY_COLUMNS, after=after, limit=limit, empty="The log is empty.")
        return
    entries = call.read(operation, after=after, limit=limit)
    for entry in entries:
        call.output.line(bytes(entry.text).decode())
    call.more(entries)


@command.verb(examples=["coordinator log show note run/7", "coordinator log show note run/7 | jq .last_seq"])
@_kind
@_key
@click.pass_obj
def show(call: Invocation, *, kind: str, key: str) -> None:
    """Show a log without its entries. Exit code 3: the log does not exist."""
    call.output.one(call.run(logs.Show(project=call.project, kind=kind, key=key)))


@command.verb(examples=["coordinator log list", "coordinator log list --kind note --prefix run/ | jq -r '.[].key'"])
@click.option("--kind", metavar="KIND", help="List only logs of this kind.")
@click.option("--prefix", default="", metavar="P", help="List only keys with this prefix.")
@paged
@click.pass_obj
def list_(call: Invocation, *, kind: str | None, prefix: str, after: str | None, limit: int | None) -> None:
    """List logs, by kind and key."""
    operation = logs.List(project=call.project, kind=kind, prefix=prefix)
    call.list(operation, COLUMNS, after=after, limit=limit, empty="There are no logs.")


@command.verb(
    examples=[
        "coordinator log follow note run/7",
        "coordinator log follow note run/7 --last 10 --data",
        "coordinator log follow message s-1 | jq --unbuffered -r .data.content",
    ]
)
@_kind
@_key
@click.option("--last", type=INTEGER, metavar="N", help="Start with the last N entries.  [default: all]")
@click.option("--after", metavar="SEQ|CURSOR", help="Start after this entry, or after the cursor of a page.")
@click.option("--data", "only_data", is_flag=True, help="Print only the contents, byte for byte.")
@click.pass_obj
def follow(call: Invocation, *, kind: str, key: str, last: int | None, after: str | None, only_data: bool) -> None:
    """Print the entries of a log as they arrive.

    Prints one line per entry, until interrupted.

    If the log does not exist yet, the command waits for it. If unread entries are gone, or the log was deleted, a line on standard error
    says so, and the existing entries follow.
    """
    import anyio  # noqa: PLC0415

    from coordinator.cli.follow import follow as followed  # noqa: PLC0415

    async def write(entries: list[LogEntry]) -> None:
        await call.output.lines(bytes(entry.text if only_data else text_of(entry)).decode() for entry in entries)

    read = logs.Read(project=call.project, kind=kind, key=key)
    if after is not None:
        read = replace(read, after=place_of(logs.Read, after))
    elif last is not None:
        try:
            entries = call.read(replace(read, last=last), after=None, limit=None)
        except NotFound as error:
            if not read.awaits(error):
                raise
            entries = Page()
        if entries:
            anyio.run(write, entries)
            read = replace(read, after=after_last(read, entries))
    while True:
        try:
            anyio.run(followed, call, read, write)
        except NotFound as error:
            if error.code not in {GONE, logs.ABSENT}:
                raise
            sys.stderr.write(plain(f"{error.message}; what is there follows") + "\n")
            read = replace(read, after=None)


@command.verb(
    examples=[
        "coordinator log pop note run/7 | jq -r '.[0].data'",
        "coordinator log pop note run/7 --last 2 --expect 9     # only if nothing follows entry 9",
    ]
)
@_kind
@_key
@click.option("--last", type=INTEGER, default=1, metavar="N", help="Take the last N entries.  [default: 1]")
@_expect
@_epoch
@click.pass_obj
def pop(call: Invocation, *, kind: str, key: str, last: int, expect: int | None, epoch: str | None) -> None:
    """Take the last entry from a log, and print it.

    Its number is not reused.
    """
    operation = call.operation(logs.Pop, kind=kind, key=key, last=last, expect=expect, epoch=epoch)
    call.output.many(call.run(operation), ENTRY_COLUMNS, empty="The log is empty.")


@command.verb(
    examples=[
        "coordinator log clear note run/7",
        "coordinator log clear note run/7 --kept     # also what is kept",
        "coordinator log clear note run/7 --expect 9",
    ]
)
@_kind
@_key
@click.option("--kept", is_flag=True, help="Also delete kept entries.")
@_expect
@_epoch
@click.pass_obj
def clear(call: Invocation, *, kind: str, key: str, kept: bool, expect: int | None, epoch: str | None) -> None:
    """Delete the entries of a log, except kept ones.

    Entries that a kept entry needs stay, too. The numbers continue.
    """
    count = call.run(call.operation(logs.Clear, kind=kind, key=key, kept=kept, expect=expect, epoch=epoch))
    call.output.one(
        {"kind": kind, "key": key, "deleted": count}, f"deleted {counted(count, 'entry', 'entries')} of {plain(key)}"
    )


@command.verb(
    examples=[
        "coordinator log keep note run/7 3     # entry 3",
        "coordinator log keep note run/7 3 9",
        "coordinator log keep note run/7     # the whole log",
        "coordinator log keep note run/7 3 --not",
    ]
)
@_kind
@_key
@click.argument("first_seq", metavar="[SEQ", type=INTEGER, required=False)
@click.argument("last_seq", metavar="[SEQ]]", type=INTEGER, required=False)
@click.option("--not", "kept", flag_value=False, default=True, help="Stop keeping them.")
@click.pass_obj
def keep(call: Invocation, /, *, kind: str, key: str, **options: Any) -> None:
    """Keep entries, so that retention does not delete them.

    Give one SEQ for one entry, two for a range, none for the whole log.
    """
    count = call.run(call.operation(logs.Keep, kind=kind, key=key, **options))
    call.output.one(
        {"kind": kind, "key": key, "changed": count}, f"changed {counted(count, 'entry', 'entries')} of {plain(key)}"
    )


@command.verb(examples=["coordinator log delete note run/7"])
@_kind
@_key
@_expect
@_epoch
@click.pass_obj
def delete(call: Invocation, *, kind: str, key: str, expect: int | None, epoch: str | None) -> None:
    """Delete a log with its entries.

    For some days, a new log with the same kind and key continues the numbers.
    """
    count = call.run(call.operation(logs.Delete, kind=kind, key=key, expect=expect, epoch=epoch))
    call.output.one(
        {"kind": kind, "key": key, "deleted": count}, f"deleted {plain(key)}, with {counted(count, 'entry', 'entries')}"
    )
