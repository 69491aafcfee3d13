"""``coordinator feature``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import noun
from coordinator.cli.document_lines import exact, expecting, reading, shown, written
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import given
from coordinator.errors import InvalidArgument
from coordinator.model.json import text_of
from coordinator.operations import documents

command = noun("Features: what a project should do, and what passes.")

_list = click.argument("key", metavar="LIST")


@command.verb(
    examples=[
        "cat feature_list.json | coordinator feature save main -",
        'coordinator feature save main \'[{"id": "login", "passes": false}]\'',
    ]
)
@_list
@click.argument("value", metavar="JSON")
@expecting
@click.pass_obj
def save(call: Invocation, /, *, value: str, **options: Any) -> None:
    """Save a whole list.

    JSON is a list of features, or an object with that list as "features". A feature has an "id", and can have "status" and "passes".
    """
    written(call, call.run(call.operation(documents.Put, kind="features", value=exact(value), **options)))


@command.verb(
    examples=["coordinator feature load main --value     # the text that was saved, unless a feature changed"]
)
@_list
@reading
@click.pass_obj
def load(call: Invocation, /, *, key: str, only_value: bool, path: tuple[str, ...], **options: Any) -> None:
    """Print a list; exit code 3 if there is none."""
    operation = documents.Get(project=call.project, kind="features", key=key, path=list(path) or None, **options)
    shown(call, call.run(operation), only_value=only_value, items="features")


@command.verb(
    name="set",
    examples=[
        "coordinator feature set main login --passes",
        "coordinator feature set main login --status open --fails",
    ],
)
@_list
@click.argument("item", metavar="ID")
@click.option("--status", metavar="TEXT", help="Its status.")
@click.option("--passes/--fails", default=None, help="Whether it passes.")
@expecting
@click.pass_obj
def set_(call: Invocation, /, *, status: str | None, passes: bool | None, **options: Any) -> None:
    """Set the status of a feature, and whether it passes, in one call."""
    change = given({"status": status, "passes": passes})
    if not change:
        raise InvalidArgument("nothing is given to set", hint="Give --status, --passes or --fails.")
    written(call, call.run(call.operation(documents.Item, kind="features", patch=text_of(change), **options)))
