"""``coordinator transaction``."""

from __future__ import annotations

import click

from coordinator.cli.command import noun
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import read_json, read_text
from coordinator.errors import InvalidArgument
from coordinator.operations import transactions

command = noun("Transactions: several writes in one call, all or none.")

SHAPE = 'Write {"conditions": [{"verb": "assert_signal", …}], "writes": [{"verb": "signal_set", …}]}.'


@command.verb(
    examples=[
        """coordinator transaction run '{"writes": [{"verb": "signal_set", "key": "state", "value": "running"}]}'""",
        "cat deploy.json | coordinator transaction run -",
    ]
)
@click.argument("parts", metavar="JSON")
@click.pass_obj
def run(call: Invocation, *, parts: str) -> None:
    """Make several writes if all conditions hold.

    JSON is an object with the lists "writes" and "conditions"; - reads standard input. Each part has a "verb", such as signal_set or
    assert_signal, and the parameters of that verb, without the project. The error for an unknown verb lists the known ones. If a part
    fails, nothing changes, and the exit code is that of its error.
    """
    given = read_json(read_text(parts), "JSON")
    if not isinstance(given, dict) or given.keys() - {"conditions", "writes"}:
        raise InvalidArgument('JSON: not an object with "writes" and "conditions" alone', hint=SHAPE)
    try:
        operation = call.operation(transactions.Run, **given)
        operation = operation.with_parts(operation.parts())
    except (TypeError, AttributeError):
        raise InvalidArgument('JSON: "writes" or "conditions" is not a list of objects', hint=SHAPE) from None
    call.output.many(call.run(operation), ("write", "verb", "result"), empty="")
