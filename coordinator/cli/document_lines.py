"""Shared by the commands for documents: options, and lines of output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.cli.values import INSTANT, INTEGER, read_exact, read_text
from coordinator.model.document import Document, DocumentHeader
from coordinator.model.operation import JsonText

__all__ = ["exact", "expecting", "reading", "shown", "written"]

MAX_COLUMNS = 30  # of a table; items that have more fields in all are printed as JSON

F = TypeVar("F", bound=Callable[..., Any])


def expecting(function: F) -> F:
    """Add the options for the expected version of a write."""
    epoch = click.option("--epoch", metavar="EPOCH", help="Only if the version that was read is from this epoch.")
    expect = click.option(
        "--expect", type=INTEGER, metavar="VERSION", help="Only if it has this version; 0: only if it is absent."
    )
    return expect(epoch(function))


def reading(function: F) -> F:
    """Add the options for which part of a document is read, and how it is printed."""
    for option in (
        click.option("--value", "only_value", is_flag=True, help="Print only the value, as its exact text."),
        click.option("--path", multiple=True, metavar="STEP", help="A key, or an index in a list, from 0; repeatable."),
        click.option("--at", type=INSTANT, metavar="TIME", help="The version at this time: 2030-01-31T14:00Z."),
        click.option("--version", type=INTEGER, metavar="N", help="This version.  [default: the latest]"),
    ):
        function = option(function)
    return function


def exact(argument: str) -> JsonText:
    """Return the JSON of an argument or, for ``-``, of standard input, as its exact text.

    Raises: ``InvalidArgument``.
    """
    return read_exact(read_text(argument).strip(), "json")


def written(call: Invocation, header: DocumentHeader) -> None:
    """Print the result of a write."""
    end = f", expires {age(header.expires_at)}" if header.expires_at else ""
    call.output.one(header, f"{plain(header.key)} is at version {header.version}{end}")


def shown(call: Invocation, document: Document, *, only_value: bool, items: str = "") -> None:
    """Print a document, or only its value, as its exact text.

    ``items``: the value is a list of objects, or an object with that list under this key. For people, they are a table,
    unless they have too many different fields.
    """
    if only_value:
        call.output.line(bytes(document.text).decode())
        return
    value = None if call.output.json or not items else document.value
    found = value.get(items) if isinstance(value, dict) else value
    rows = found if isinstance(found, list) and all(isinstance(row, dict) for row in found) else []
    names = dict.fromkeys(("id", "status", *(name for row in rows for name in row)))
    if not rows or len(names) > MAX_COLUMNS:
        call.output.one(document)
        return
    header = {name: getattr(document, name) for name in DocumentHeader.__struct_fields__}
    rest = {name: part for name, part in value.items() if name != items} if isinstance(value, dict) else {}
    call.output.one({**header, "value": rest} if rest else header)
    call.output.line("")
    call.output.many(rows, names, empty="")
