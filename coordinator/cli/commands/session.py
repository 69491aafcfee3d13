"""``coordinator session``."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli.command import confirm, noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.values import INTEGER, OBJECT, given
from coordinator.operations import sessions

command = noun("Sessions: conversations and runs of work.")

COLUMNS = (
    "session", "status", "updated_at", "title", "username", "created_at", "forked_from", "mission", "context", "actor",
)  # fmt: skip

_session = click.argument("session", metavar="KEY")
_username = click.option("--user", "username", metavar="NAME", help="User who owns the session.")
_title = click.option("--title", metavar="TEXT", help="Title, one line.")
_mission = click.option("--mission", metavar="TEXT", help="Goal of the session.")
_status = click.option("--status", metavar="WORD", help="Status: active, or your own word.")
_context = click.option("--context", type=OBJECT, metavar="JSON", help="Your own settings, an object.")


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
def create(call: Invocation, /, **options: Any) -> None:
    """Create a session, and print its key: KEY, by default a new UUID.

    The first message under a key creates it, too.
    """
    made = call.run(call.operation(sessions.Create, **given(options)))
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
    """Change a session; omitted options keep their values.

    A new status reactivates an archived session.
    """
    changed = call.run(call.operation(sessions.Set, **options))
    call.output.one(changed, plain(f"{changed.session} is {changed.status}"))


@command.verb(examples=["coordinator session archive review-42"])
@_session
@click.pass_obj
def archive(call: Invocation, *, session: str) -> None:
    """Archive a session: it becomes read-only."""
    call.output.one(call.run(call.operation(sessions.Archive, session=session)), f"archived {plain(session)}")


@command.verb(
    examples=[
        "coordinator session fork review-42 17",
        "coordinator session fork review-42 --copy review-42-again --title 'Second attempt'",
        "coordinator session fork run-7 3 --kind step",
    ]
)
@_session
@click.argument("seq", type=INTEGER, required=False)
@click.option(
    "--kind", metavar="KIND", default="message", show_default=True, help="Kind of the log that has the entry."
)
@click.option("--copy", metavar="KEY", help="Key of the new session.  [default: a new UUID]")
@click.option("--title", metavar="TEXT", help="Title of the new session.  [default: that of the old one]")
@click.pass_obj
def fork(call: Invocation, /, **options: Any) -> None:
    """Copy a session, and print the key of the copy.

    With SEQ, the copy has the state at that message, without later entries and document versions.
    """
    made = call.run(call.operation(sessions.Fork, **options))
    call.output.one(made, plain(made.session))


@command.verb(examples=["coordinator session delete review-42 --yes"])
@_session
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation; required without a terminal.")
@click.pass_obj
def delete(call: Invocation, *, session: str, yes: bool) -> None:
    """Delete a session and everything in it."""
    confirm(f"Delete session {plain(session)} and everything in it?", yes=yes)
    while not call.run(call.operation(sessions.Delete, session=session)):
        pass
    call.output.one({"session": session, "deleted": True}, f"deleted {plain(session)}")
