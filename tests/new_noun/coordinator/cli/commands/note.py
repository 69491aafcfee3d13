"""``coordinator note``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import DURATION
from coordinator.operations import notes

command = noun("Notes: short texts that agents leave for each other.")


@command.verb(examples=['coordinator note write build "the cache is stale"'])
@click.argument("key")
@click.argument("text")
@click.option("--ttl", type=DURATION, default="1d", show_default=True, help="The note is gone after this long.")
@click.pass_obj
def write(call: Invocation, **options: Any) -> None:
    """Write a note, or replace the one with the same key."""
    call.output.one(call.run(call.operation(notes.Write, **options)), plain(f"wrote {options['key']}"))


@command.verb(examples=["coordinator note list"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the notes of a project by key."""
    columns = ("key", "text", "actor", "written_at")
    call.list(call.operation(notes.List), columns, after=after, limit=limit, empty="There are no notes.")


@command.verb(examples=["coordinator note delete build"])
@click.argument("key")
@click.pass_obj
def delete(call: Invocation, *, key: str) -> None:
    """Delete a note."""
    call.run(call.operation(notes.Delete, key=key))
    call.output.one({"key": key, "deleted": True}, plain(f"deleted {key}"))
