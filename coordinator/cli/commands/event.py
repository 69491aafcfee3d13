"""``coordinator event``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coordinator.cli.command import noun
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import DURATION, INTEGER, OBJECT
from coordinator.model.operation import Json

command = noun("Events: one for each change, in order.")

_topics = click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="PATTERN",
    help="Type, or pattern such as signal.*; repeatable.",
)
_keys = click.option(
    "--key", "keys", multiple=True, metavar="PATTERN", help="Key, or pattern such as task/7/*; repeatable."
)
_actors = click.option("--by", "actors", multiple=True, metavar="NAME", help="Actor of the change; repeatable.")


@command.verb(
    examples=[
        "coordinator event tail",
        "coordinator event tail --follow --topic 'signal.*' --topic directive.sent",
        "coordinator event tail --follow --key 'task/7/*' --by coder-1",
        "coordinator event tail --after 5f3a1c2b.1042 --follow | jq --unbuffered .data",
        "coordinator event tail --after now --follow --limit 1 --timeout 5m     # wait for the next event",
    ]
)
@_topics
@_keys
@_actors
@click.option("--after", metavar="CURSOR", help='Start after this cursor, or "now".  [default: the oldest event]')
@click.option("-f", "--follow", is_flag=True, help="Follow new events until Ctrl-C or SIGTERM.")
@click.option("--limit", type=INTEGER, metavar="N", help="Stop after this many events.")
@click.option("--timeout", type=DURATION, help="Stop after this long, with exit code 8.")
@click.option("--all-projects", is_flag=True, help="Print the events of all projects.")
@click.pass_obj
def tail(call: Invocation, /, *, all_projects: bool, **options: Any) -> None:
    """Print the retained events in order; --follow adds new ones.

    JSON output has one object per line. To resume, pass the cursor of the last event to --after. An event of type "reset" means that
    earlier events are gone. After a lost connection, the tail reconnects and misses no event.
    """
    from coordinator.cli.tail import Tail  # noqa: PLC0415

    Tail(call, project=None if all_projects else call.project, **options).run()


@command.verb(
    examples=[
        "coordinator event watch --exec 'jq .key' --topic 'signal.*'",
        "coordinator event watch --exec ./on-release.sh --topic lock.released --cursor-file ~/.local/state/on-release",
    ]
)
@click.option(
    "--exec",
    "handler",
    metavar="HANDLER",
    required=True,
    help="Command line that the shell runs for each event, with the event as JSON on its standard input.",
)
@click.option(
    "--cursor-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Store the position in this file, and continue from it after a restart.",
)
@_topics
@_keys
@_actors
@click.option(
    "--after", default="now", show_default=True, metavar="CURSOR", help="Start here, if there is no cursor file yet."
)
@click.option("--limit", type=INTEGER, metavar="N", help="Stop after this many events.")
@click.option("--timeout", type=DURATION, help="Stop after this long, with exit code 8.")
@click.option("--all-projects", is_flag=True, help="Handle the events of all projects.")
@click.pass_obj
def watch(
    call: Invocation, /, *, handler: str, cursor_file: Path | None, after: str, all_projects: bool, **options: Any
) -> None:
    """Run a program for each event, one after the other.

    The environment of the handler has COORDINATOR_EVENT_TYPE, COORDINATOR_EVENT_KEY and COORDINATOR_EVENT_CURSOR. If a handler fails,
    the watch ends with its exit code. With --cursor-file, the next run repeats that event and loses none. If the watch is killed, an
    event may be handled twice.
    """
    from coordinator.cli.watch import Watch  # noqa: PLC0415

    Watch(call, handler, cursor_file, after, project=None if all_projects else call.project, **options).run()


@command.verb(
    examples=[
        "coordinator event emit custom.build_finished --key build/42 --data '{\"seconds\": 31}'",
    ]
)
@click.argument("type")
@click.option("--key", metavar="KEY", help="What the event is about.")
@click.option("--data", type=OBJECT, default="{}", metavar="JSON", help="Object; - reads standard input.")
@click.pass_obj
def emit(call: Invocation, *, type: str, key: str | None, data: dict[str, Json]) -> None:
    """Emit a custom event. Its type starts with "custom."."""
    from coordinator.operations import events  # noqa: PLC0415

    call.run(call.operation(events.Emit, type=type, key=key, data=data))
    call.output.one({"type": type, "key": key, "emitted": True}, f"emitted {plain(type)}")


@command.verb(examples=["after=$(coordinator event head --output text)"])
@click.pass_obj
def head(call: Invocation) -> None:
    """Print the cursor of the newest event.

    Read it before you list anything. A tail after this cursor then misses no change.
    """
    from coordinator.operations import events  # noqa: PLC0415

    cursor = call.run(events.Head())
    call.output.one({"cursor": cursor}, cursor)


@command.verb(examples=["coordinator event configure --payloads head"])
@click.option(
    "--payloads",
    type=click.Choice(["full", "pointer", "head"]),
    metavar="full|pointer|head",
    required=True,
    help="Each event, its cursor and type, or only the newest cursor of each batch.",
)
@click.pass_obj
def configure(call: Invocation, *, payloads: str) -> None:
    """Choose the NOTIFY payload for LISTEN clients, for all projects.

    Every role that can connect to the database can listen. Clients, streams and this command line need only the head.
    """
    from coordinator.operations import events  # noqa: PLC0415

    changed = call.run(call.operation(events.Configure, payloads=payloads))
    text = f"notifications carry {payloads}" if changed else f"notifications already carry {payloads}"
    call.output.one({"payloads": payloads, "changed": changed}, text)
