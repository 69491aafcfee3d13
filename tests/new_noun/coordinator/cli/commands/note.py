"""``coordinator note``."""

from __future__ import annotations

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.operations import notes

command = noun("Notes: short texts that agents leave for each other.")


@command.verb(examples=['coordinator note write build "the cache is stale"'])
@click.argument("key")
@click.argument("text")
@click.pass_obj
def write(call: Invocation, *, key: str, text: str) -> None:
    """Write a note, or replace the one with the same key."""
    note = call.run(notes.Write(project=call.project, key=key, text=text, actor=call.actor))
    call.output.one(note, plain(f"wrote {key}"))


@command.verb(examples=["coordinator note list"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the notes of a project by key."""
    columns = ("key", "text", "actor", "written_at")
    call.list(notes.List(project=call.project), columns, after=after, limit=limit, empty="There are no notes.")


@command.verb(examples=["coordinator note delete build"])
@click.argument("key")
@click.pass_obj
def delete(call: Invocation, *, key: str) -> None:
    """Delete a note."""
    call.run(notes.Delete(project=call.project, key=key, actor=call.actor))
    call.output.one({"key": key, "deleted": True}, plain(f"deleted {key}"))
