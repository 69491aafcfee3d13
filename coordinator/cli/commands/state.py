"""``coordinator state``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import noun
from coordinator.cli.document_lines import exact, expecting, reading, shown, written
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import DURATION
from coordinator.operations import documents

command = noun("States: the state of each session, with its versions.")

_session = click.argument("session")


@command.verb(
    examples=[
        "coordinator state save review-42 '{\"step\": 2}'",
        "cat state.json | coordinator state save review-42 - --expect 7     # only if it has version 7",
    ]
)
@_session
@click.argument("value", metavar="JSON")
@expecting
@click.option("--ttl", type=DURATION, help="Expire it after this long.  [default: never]")
@click.pass_obj
def save(call: Invocation, /, *, session: str, value: str, **options: Any) -> None:
    """Save the state of a session, an object.

    The first state creates the session. JSON is stored byte for byte; - reads standard input.
    """
    operation = call.operation(documents.Put, kind="state", key=session, value=exact(value), **options)
    written(call, call.run(operation))


@command.verb(
    examples=["coordinator state load review-42 --value | jq .step", "coordinator state load review-42 --version 3"]
)
@_session
@reading
@click.pass_obj
def load(call: Invocation, /, *, session: str, only_value: bool, path: tuple[str, ...], **options: Any) -> None:
    """Print the state of a session.

    Exit code 3: it has no state, the version is no longer kept, or the path leads to nothing.
    """
    operation = documents.Get(project=call.project, kind="state", key=session, path=list(path) or None, **options)
    shown(call, call.run(operation), only_value=only_value)
