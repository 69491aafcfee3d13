"""``coordinator message``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.commands.log import ENTRY_COLUMNS, appended
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import INTEGER, read_exact, read_text
from coordinator.errors import InvalidArgument
from coordinator.operations import logs, messages

command = noun("Messages: the conversations of sessions, and windows of them.")

_session = click.argument("session")


@command.verb(
    examples=[
        "coordinator message append chat/7 --role user 'What is the weather in Paris?'",
        'coordinator message append chat/7 --role user --json \'[{"type": "text", "text": "Hello"}]\'',
        'coordinator message append chat/7 \'{"role": "tool", "tool_call_id": "call_1", "content": "Rain"}\'',
        "cat answer.txt | coordinator message append chat/7 --role assistant - --tokens 812",
        "coordinator message append chat/7 --role user 'Go on.' --expect 12     # only if nothing follows message 12",
    ]
)
@_session
@click.argument("content", metavar="TEXT|MESSAGE")
@click.option(
    "--role",
    metavar="NAME",
    help="Author of TEXT: user, assistant, system. Without it, give a complete message as JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="Take TEXT as JSON, such as a list of parts.")
@click.option("--tokens", type=INTEGER, metavar="N", help="Number of model tokens.  [default: one for four bytes]")
@click.option("--uid", metavar="NAME", help="Name of the message: appending it again does nothing.")
@click.option(
    "--needs",
    type=INTEGER,
    metavar="SEQ",
    help="Earliest message that it needs; -1: the one before it.",
)
@click.option(
    "--expect",
    type=INTEGER,
    metavar="SEQ",
    help="Append only if this is the last number; 0: only if there is no message yet.",
)
@click.option("--epoch", metavar="EPOCH", help="Append only if the last number is from this epoch.")
@click.pass_obj
def append(call: Invocation, /, *, session: str, content: str, role: str | None, as_json: bool, **options: Any) -> None:
    """Append a message to a session; the first one creates it.

    If TEXT is "-", it is read from standard input.
    """
    text = read_text(content)
    if role is None and not text.lstrip().startswith("{"):
        raise InvalidArgument(
            "the message has no role",
            hint="Give --role, such as --role user, or a whole message such as "
            '\'{"role": "user", "content": "Hello"}\'.',
            code="ZC105",
        )
    said = read_exact(text, "text" if role is not None and not as_json else "json")
    receipt = call.run(call.operation(messages.Append, session=session, content=said, role=role, **options))
    call.output.one(receipt, appended(receipt, "message"))


@command.verb(
    examples=[
        "coordinator message window chat/7 --tokens 5000 --complete",
        "coordinator message window chat/7 --turns 3",
        "coordinator message window chat/7 --last 20 --data     # only the messages, one a line, as they were given",
    ]
)
@_session
@click.option("--last", type=INTEGER, metavar="N", help="At most the last N messages.")
@click.option("--turns", type=INTEGER, metavar="N", help="At most the last N turns; start with a user message.")
@click.option("--tokens", type=INTEGER, metavar="N", help="At most N tokens.")
@click.option(
    "--complete", is_flag=True, help="Omit calls without a result, results without a call, and messages that need them."
)
@click.option("--data", "only_data", is_flag=True, help="Print only the messages, byte for byte.")
@click.pass_obj
def window(call: Invocation, /, *, only_data: bool, **options: Any) -> None:
    """Print the longest tail of a conversation that fits.

    It never starts between a tool call and its result, or between reasoning and the message that needs it. Exit code 3: the session does not exist.
    """
    found = call.run(messages.Window(project=call.project, **options))
    if only_data:
        for message in found:
            call.output.line(bytes(message.text).decode())
        return
    call.output.many(found, ENTRY_COLUMNS, empty="No message fits.")


@command.verb(examples=["coordinator message list chat/7", "coordinator message list chat/7 --last 20"])
@_session
@click.option("--last", type=INTEGER, metavar="N", help="List only the last N messages.")
@paged
@click.pass_obj
def list_(call: Invocation, *, session: str, last: int | None, after: str | None, limit: int | None) -> None:
    """List the messages of a session, in their order."""
    operation = logs.Read(project=call.project, kind="message", key=session, last=last)
    call.list(operation, ENTRY_COLUMNS, after=after, limit=limit, empty="There are no messages.")
