"""``coordinator document``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.document_lines import exact, expecting, reading, shown, written
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import DURATION, INTEGER
from coordinator.operations import documents

command = noun("Documents: versioned JSON values, by kind and key.")

COLUMNS = ("kind", "key", "version", "updated_at", "actor", "expires_at", "session", "kept", "epoch", "created_at")
VERSIONS = ("version", "written_at", "actor", "text_bytes", "deleted", "expires_at", "epoch")


_kind = click.argument("kind")
_key = click.argument("key")
_path = click.option("--path", multiple=True, metavar="STEP", help="A key, or an index in a list, from 0; repeatable.")


@command.verb(
    examples=[
        "coordinator document put plan main '{\"step\": 2}'",
        "cat plan.json | coordinator document put plan main - --expect 7     # only if it has version 7",
        "coordinator document put plan main '{}' --expect 0 --ttl 2h     # only if it is absent",
    ]
)
@_kind
@_key
@click.argument("value", metavar="JSON")
@expecting
@click.option("--ttl", type=DURATION, help="Expire it after this long.  [default: never]")
@click.option("--session", metavar="KEY", help="Session that it belongs to.")
@click.pass_obj
def put(call: Invocation, /, *, value: str, **options: Any) -> None:
    """Write a version of a document.

    JSON is stored byte for byte; - reads standard input.
    """
    written(call, call.run(call.operation(documents.Put, value=exact(value), **options)))


@command.verb(
    examples=[
        "coordinator document get plan main",
        "coordinator document get plan main --value | jq .step     # only the value, as it was put",
        "coordinator document get plan main --version 3",
        "coordinator document get plan main --path steps --path 0",
    ]
)
@_kind
@_key
@reading
@click.pass_obj
def get(call: Invocation, /, *, only_value: bool, path: tuple[str, ...], **options: Any) -> None:
    """Read a document.

    Exit code 3: the document does not exist, the version is no longer kept, or the path leads to nothing.
    """
    operation = documents.Get(project=call.project, path=list(path) or None, **options)
    shown(call, call.run(operation), only_value=only_value)


@command.verb(examples=['coordinator document patch plan main \'{"step": 3, "note": null}\'     # null deletes a key'])
@_kind
@_key
@click.argument("patch", metavar="JSON")
@expecting
@click.pass_obj
def patch(call: Invocation, /, *, patch: str, **options: Any) -> None:
    """Merge an object into a document (RFC 7396).

    null deletes a key, objects are merged, and any other value replaces the old one. Concurrent calls lose no updates.
    """
    written(call, call.run(call.operation(documents.Patch, patch=exact(patch), **options)))


@command.verb(
    examples=[
        "coordinator document item plan main 3 '{\"done\": true}' --path steps",
        "coordinator document item hosts all web-1 '{\"up\": false}' --field name     # a document that is a list",
    ]
)
@_kind
@_key
@click.argument("item", metavar="ID")
@click.argument("patch", metavar="JSON")
@_path
@click.option("--field", metavar="KEY", help="Key that holds the id.  [default: id]")
@expecting
@click.pass_obj
def item(call: Invocation, /, *, patch: str, path: tuple[str, ...], field: str | None, **options: Any) -> None:
    """Merge an object into one item of a list, found by its ID.

    Concurrent calls lose no updates. The path leads to the list. The default is the place where todo lists and features have their list, or the document itself.
    """
    if field is not None:
        options["field"] = field
    written(
        call,
        call.run(call.operation(documents.Item, patch=exact(patch), path=list(path) or None, **options)),
    )


@command.verb(examples=["coordinator document delete plan main", "coordinator document delete plan main --expect 7"])
@_kind
@_key
@expecting
@click.pass_obj
def delete(call: Invocation, /, **options: Any) -> None:
    """Delete a document.

    Its versions are kept for 7 days; until then, "document restore" recovers it.
    """
    header = call.run(call.operation(documents.Delete, **options))
    call.output.one(
        {"kind": header.kind, "key": header.key, "version": header.version, "deleted": True},
        f"deleted {plain(header.key)}",
    )


@command.verb(examples=["coordinator document keep plan main", "coordinator document keep plan main --not"])
@_kind
@_key
@click.option("--not", "kept", flag_value=False, default=True, help="Stop keeping it.")
@click.pass_obj
def keep(call: Invocation, *, kind: str, key: str, kept: bool) -> None:
    """Keep a document, so that retention does not delete it.

    This also works for a deleted document.
    """
    changed = call.run(call.operation(documents.Keep, kind=kind, key=key, kept=kept))
    call.output.one(
        {"kind": kind, "key": key, "kept": kept, "changed": changed},
        f"{plain(key)} is {'kept' if kept else 'no longer kept'}",
    )


@command.verb(
    examples=[
        "coordinator document restore plan main                 # after it was deleted, or has expired",
        "coordinator document restore plan main --version 3     # the value of version 3, as a new version",
    ]
)
@_kind
@_key
@click.option(
    "--version", type=INTEGER, metavar="N", help="Version whose value to restore.  [default: the latest value]"
)
@expecting
@click.option("--ttl", type=DURATION, help="Expire it after this long.  [default: never]")
@click.pass_obj
def restore(call: Invocation, /, **options: Any) -> None:
    """Write the value of an earlier version again, as a new version."""
    written(call, call.run(call.operation(documents.Restore, **options)))


@command.verb(
    examples=["coordinator document list", "coordinator document list --kind plan --prefix team/ | jq -r '.[].key'"]
)
@click.option("--kind", metavar="KIND", help="List only this kind.")
@click.option("--prefix", default="", metavar="P", help="List only keys with this prefix.")
@paged
@click.pass_obj
def list_(call: Invocation, *, kind: str | None, prefix: str, after: str | None, limit: int | None) -> None:
    """List documents without their values, by kind and key."""
    operation = documents.List(project=call.project, kind=kind, prefix=prefix)
    call.list(operation, COLUMNS, after=after, limit=limit, empty="There are no documents.")


@command.verb(examples=["coordinator document history plan main"])
@_kind
@_key
@paged
@click.pass_obj
def history(call: Invocation, *, kind: str, key: str, after: str | None, limit: int | None) -> None:
    """List the retained versions, newest first.

    This also works for a deleted or expired document.
    """
    operation = documents.History(project=call.project, kind=kind, key=key)
    call.list(operation, VERSIONS, after=after, limit=limit, empty="")


@command.verb(
    examples=["coordinator document diff plan main 3     # to the latest", "coordinator document diff plan main 3 5"]
)
@_kind
@_key
@click.argument("version", type=INTEGER)
@click.argument("other", type=INTEGER, required=False)
@click.pass_obj
def diff(call: Invocation, *, kind: str, key: str, version: int, other: int | None) -> None:
    """Print the difference between two versions.

    The output is a JSON Patch (RFC 6902) from VERSION to OTHER, by default the latest.
    """
    operation = documents.Diff(project=call.project, kind=kind, key=key, version=version, other=other)
    call.output.line(bytes(call.run(operation)).decode())
