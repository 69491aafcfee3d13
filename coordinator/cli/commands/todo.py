"""``coordinator todo``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import noun
from coordinator.cli.document_lines import exact, expecting, reading, shown, written
from coordinator.cli.invocation import Invocation
from coordinator.operations import documents

command = noun("Todo lists: lists of items, changed one at a time.")

_list = click.argument("key", metavar="LIST")


@command.verb(
    examples=[
        'coordinator todo save release \'[{"id": 1, "status": "PENDING"}]\'',
        "cat plan.json | coordinator todo save review-42/plan - --session review-42",
    ]
)
@_list
@click.argument("value", metavar="JSON")
@expecting
@click.option("--session", metavar="KEY", help="Session that it belongs to.")
@click.pass_obj
def save(call: Invocation, /, *, value: str, **options: Any) -> None:
    """Save a whole list.

    JSON is a list of items, or an object with that list as "items". An item has an "id", and can have a "status".
    """
    written(call, call.run(call.operation(documents.Put, kind="todo", value=exact(value), **options)))


@command.verb(examples=["coordinator todo load release --value | jq '.[] | select(.status != \"COMPLETED\")'"])
@_list
@reading
@click.pass_obj
def load(call: Invocation, /, *, key: str, only_value: bool, path: tuple[str, ...], **options: Any) -> None:
    """Print a list; exit code 3 if there is none."""
    operation = documents.Get(project=call.project, kind="todo", key=key, path=list(path) or None, **options)
    shown(call, call.run(operation), only_value=only_value, items="items")


@command.verb(examples=['coordinator todo item release 3 \'{"status": "COMPLETED"}\''])
@_list
@click.argument("item", metavar="ID")
@click.argument("patch", metavar="JSON")
@expecting
@click.pass_obj
def item(call: Invocation, /, *, patch: str, **options: Any) -> None:
    """Change one item, found by its ID.

    The object JSON is merged into the item; null deletes a key. Concurrent calls lose no updates.
    """
    written(call, call.run(call.operation(documents.Item, kind="todo", patch=exact(patch), **options)))
