"""``coordinator session``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import OBJECT
from coordinator.model.operation import Json
from coordinator.operations import sessions

command = noun("Sessions: conversations and runs of work.")

COLUMNS = (
    "session",
    "username",
    "title",
    "status",
    "updated_at",
    "created_at",
    "forked_from",
    "mission",
    "context",
    "actor",
)

_session = click.argument("session", metavar="KEY")
_username = click.option("--user", "username", metavar="NAME", help="User whose session it is.")
_title = click.option("--title", metavar="TEXT", help="Title, one line.")
_mission = click.option("--mission", metavar="TEXT", help="What is to be done.")
_status = click.option("--status", metavar="WORD", help="Status: active, or a word of your own.")
_context = click.option("--context", type=OBJECT, metavar="JSON", help="An object of your own.")


@command.verb(
    examples=[
        "coordinator session create review-42 --user ada --title 'Review of 42'",
        "session=$(coordinator -o text session create --mission 'Port the parser')",
    ]
)
@click.argument("session", metavar="[KEY]", required=False)
@_username
@_title
@_mission
@_status
@_context
@click.pass_obj
def create(call: Invocation, /, *, context: dict[str, Json] | None, **options: Any) -> None:
    """Create a session, and print its key: KEY, by default a new UUID.

    The first message under a key creates it, too.
    """
    given = {name: value for name, value in {**options, "context": context}.items() if value is not None}
    made = call.run(call.operation(sessions.Create, **given))
    call.output.one(made, plain(made.session))


@command.verb(
    examples=["coordinator session list --user ada --status active", "coordinator session list --limit 20 --wide"]
)
@click.option("--user", "username", metavar="NAME", help="Only those of this user.")
@click.option("--status", metavar="WORD", help="Only those with this status, such as active or archived.")
@paged
@click.pass_obj
def list_(call: Invocation, *, username: str | None, status: str | None, after: str | None, limit: int | None) -> None:
    """List the sessions of the project, by last use."""
    operation = sessions.List(project=call.project, username=username, status=status)
    call.list(operation, COLUMNS, after=after, limit=limit, empty="There are no such sessions.")


@command.verb(examples=["coordinator session show review-42"])
@_session
@click.pass_obj
def show(call: Invocation, *, session: str) -> None:
    """Show a session."""
    call.output.one(call.run(sessions.Show(project=call.project, session=session)))


@command.verb(name="set", examples=["coordinator session set review-42 --status done --title 'Review of 42 and 43'"])
@_session
@_username
@_title
@_mission
@_status
@_context
@click.pass_obj
def set_(call: Invocation, /, **options: Any) -> None:
    """Change parts of a session; what is not given stays.

    Another status makes an archived session usable again.
    """
    changed = call.run(call.operation(sessions.Set, **options))
    call.output.one(changed, plain(f"{changed.session} is {changed.status}"))


@command.verb(examples=["coordinator session archive review-42"])
@_session
@click.pass_obj
def archive(call: Invocation, *, session: str) -> None:
    """Archive a session: it stays readable, and takes nothing more."""
    call.output.one(call.run(call.operation(sessions.Archive, session=session)), f"archived {plain(session)}")
