"""``coordinator event``."""

from __future__ import annotations

from datetime import timedelta

import click

from coordinator.cli.command import noun
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import DURATION, INTEGER, OBJECT
from coordinator.model.operation import Json

command = noun("Events: one for each change, in order.")


@command.verb(
    examples=[
        "coordinator event tail",
        "coordinator event tail --follow --topic 'signal.*' --topic directive.sent",
        "coordinator event tail --after 5f3a1c2b.1042 --follow | jq --unbuffered .data",
        "coordinator event tail --after now --follow --limit 1 --timeout 5m     # wait for the next event",
    ]
)
@click.option(
    "--topic", "topics", multiple=True, metavar="PATTERN", help="A type or a pattern such as signal.*; may be repeated."
)
@click.option("--after", metavar="CURSOR", help='After the event of this cursor; "now": only what comes.')
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C or SIGTERM.")
@click.option("--limit", type=INTEGER, metavar="N", help="End after so many events.")
@click.option("--timeout", type=DURATION, help="End after so long, with exit code 8; with --limit: without them all.")
@click.option("--all-projects", is_flag=True, help="Events of all projects.")
@click.pass_obj
def tail(
    call: Invocation,
    *,
    topics: tuple[str, ...],
    after: str | None,
    follow: bool,
    limit: int | None,
    timeout: timedelta | None,
    all_projects: bool,
) -> None:
    """Print events in order: what is retained, with --follow also what comes.

    As JSON, an object on each line. Go on later with --after and the cursor of the last event. An event of type "reset"
    says that events are gone before it. A lost connection is made anew, and no event is left out.
    """
    from coordinator.cli.tail import Tail  # noqa: PLC0415

    Tail(
        call,
        topics=topics,
        after=after,
        project=None if all_projects else call.project,
        follow=follow,
        limit=limit,
        timeout=timeout,
    ).run()


@command.verb(
    examples=[
        "coordinator event emit custom.build_finished --key build/42 --data '{\"seconds\": 31}'",
    ]
)
@click.argument("type")
@click.option("--key", metavar="KEY", help="What it is about.")
@click.option("--data", type=OBJECT, default="{}", metavar="JSON", help="An object; - reads standard input.")
@click.pass_obj
def emit(call: Invocation, *, type: str, key: str | None, data: dict[str, Json]) -> None:
    """Emit an event of your own, of a type that begins with "custom."."""
    from coordinator.operations import events  # noqa: PLC0415

    call.run(events.Emit(project=call.project, type=type, key=key, data=data, actor=call.actor))
    call.output.one({"type": type, "key": key, "emitted": True}, f"emitted {plain(type)}")


@command.verb(examples=["after=$(coordinator event head --output text)"])
@click.pass_obj
def head(call: Invocation) -> None:
    """Print the cursor after the newest event: read it, take a look at anything, then tail on from it without a gap."""
    from coordinator.operations import events  # noqa: PLC0415

    cursor = call.run(events.Head())
    call.output.one({"cursor": cursor}, cursor)
