"""``coordinator log``."""

from __future__ import annotations

from datetime import datetime

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import INSTANT, INTEGER, read_exact, read_text
from coordinator.errors import InvalidArgument
from coordinator.model.json import text_of
from coordinator.model.log import NewEntry
from coordinator.model.operation import JsonText
from coordinator.operations import logs

command = noun("Logs: append-only lists of entries, each under a kind and a key.")

COLUMNS = ("kind", "key", "count", "first_seq", "last_seq", "updated_at", "epoch", "kept")
ENTRY_COLUMNS = ("seq", "text", "role", "created_at", "actor", "tokens", "uid", "needs", "kept", "epoch")

_kind = click.argument("kind")
_key = click.argument("key")


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
@click.argument("data", nargs=-1)
@click.option(
    "--entries",
    metavar="JSON",
    help='Entries with all their fields, such as [{"data": 1, "uid": "a"}]; -: from standard input.',
)
@click.option("--uid", metavar="NAME", help="Name of the entry: appending it again does nothing.")
@click.option("--role", metavar="NAME", help="Whose the entry is.  [default: the role in DATA]")
@click.option("--tokens", type=INTEGER, metavar="N", help="How many tokens of a model it takes.")
@click.option(
    "--needs",
    type=INTEGER,
    metavar="SEQ",
    help="The earliest entry without which it is of no use; -1: the one before it.",
)
@click.option(
    "--expect",
    type=INTEGER,
    metavar="SEQ",
    help="Append only if this is the last number; 0: only if there is no such log.",
)
@click.option("--epoch", metavar="EPOCH", help="Append only if the last number is of this epoch.")
@click.option(
    "--session", metavar="KEY", help="Session that a new log belongs to: its key is KEY, or begins with KEY and /."
)
@click.option("--text", "form", flag_value="text", help="Take DATA as text, even if it is JSON.")
@click.option("--json", "form", flag_value="json", help="Reject DATA that is not JSON.")
@click.pass_obj
def append(
    call: Invocation,
    *,
    kind: str,
    key: str,
    data: tuple[str, ...],
    entries: str | None,
    uid: str | None,
    role: str | None,
    tokens: int | None,
    needs: int | None,
    expect: int | None,
    epoch: str | None,
    session: str | None,
    form: str | None,
) -> None:
    """Append entries to a log, all or none; the first append creates it.

    DATA is JSON, which is stored byte for byte, or else text. If it is "-", it is read from standard input.
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
    operation = call.operation(
        logs.Append, kind=kind, key=key, entries=entries_text, expect=expect, epoch=epoch, session=session
    )
    receipt = call.run(operation)
    call.output.one(
        receipt,
        f"{plain(key)} is at entry {receipt.last_seq}"
        if receipt.appended
        else f"it is there already, as entry {receipt.last_seq}",
    )


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
@click.option("--at", type=INSTANT, metavar="TIME", help="Read what had been appended by then: 2030-01-31T14:00Z.")
@click.option("--data", "only_data", is_flag=True, help="Print only the contents, as they were given.")
@paged
@click.pass_obj
def read(
    call: Invocation,
    *,
    kind: str,
    key: str,
    before: int | None,
    last: int | None,
    at: datetime | None,
    only_data: bool,
    after: str | None,
    limit: int | None,
) -> None:
    """Read entries of a log, in the order of their numbers. Exit code 3: there is no such log."""
    operation = logs.Read(project=call.project, kind=kind, key=key, before=before, last=last, at=at)
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
    """Show a log without its entries. Exit code 3: there is no such log."""
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
