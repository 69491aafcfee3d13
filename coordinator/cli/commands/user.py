"""``coordinator user``."""

from __future__ import annotations

import sys

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.errors import InvalidArgument
from coordinator.model.password import MAX_CHARACTERS, Password
from coordinator.model.token import Role
from coordinator.operations import users

command = noun("Users: who owns projects, sessions and tokens.")

COLUMNS = ("username", "email", "role", "disabled_at", "updated_at", "created_at", "actor", "id")

_username = click.argument("username", metavar="NAME")
_role = click.Choice([role.name for role in Role])
_ROLES = "|".join(role.name for role in Role)


def _password(*, new: bool) -> Password:
    """Ask for a password on a terminal, else read it from the first line of standard input."""
    if sys.stdin.isatty():
        return Password(click.prompt("Password", hide_input=True, confirmation_prompt=new, err=True))
    text = sys.stdin.readline(MAX_CHARACTERS + 2).rstrip("\r\n")
    if not text:
        raise InvalidArgument(
            "there is no password on standard input",
            hint="Pipe it to the command as one line, or run the command on a terminal, which asks for it.",
            code="ZC101",
        )
    return Password(text)


@command.verb(
    examples=[
        "coordinator user create ada --role manager --email ada@example.org",
        "coordinator user create ci --no-password",
        "pass show ada | coordinator user create ada",
    ]
)
@_username
@click.option("--role", type=_role, metavar=_ROLES, default="agent", show_default=True, help="Role.")
@click.option("--email", metavar="ADDRESS", help="Email address.")
@click.option("--no-password", is_flag=True, help="Create the user without a password.")
@click.pass_obj
def create(call: Invocation, *, username: str, role: str, email: str | None, no_password: bool) -> None:
    """Create a user.

    The command asks for the password on a terminal, and otherwise reads it from standard input.
    """
    password = None if no_password else _password(new=True)
    user = call.run(call.operation(users.Create, username=username, role=role, email=email, password=password))
    call.output.one(user, plain(f"created {user.username}"))


@command.verb(examples=["coordinator user verify ada", "pass show ada | coordinator user verify ada"])
@_username
@click.pass_obj
def verify(call: Invocation, *, username: str) -> None:
    """Check the password of a user. Exit code 5: it is wrong.

    The command asks for it on a terminal, and otherwise reads it from standard input.
    """
    user = call.run(call.operation(users.Verify, username=username, password=_password(new=False)))
    call.output.one(user, plain(f"{user.username} is {user.role}"))


@command.verb(examples=["coordinator user password ada", "pass show ada | coordinator user password ada"])
@_username
@click.pass_obj
def password(call: Invocation, *, username: str) -> None:
    """Set the password of a user.

    The command asks for it on a terminal, and otherwise reads it from standard input.
    """
    user = call.run(call.operation(users.ChangePassword, username=username, password=_password(new=True)))
    call.output.one(user, plain(f"changed the password of {user.username}"))


@command.verb(examples=["coordinator user list"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List users, by name."""
    call.list(users.List(), COLUMNS, after=after, limit=limit, empty="There are no users.")


@command.verb(
    name="set",
    examples=["coordinator user set ada --role admin", "coordinator user set ada --disabled  # revokes her tokens"],
)
@_username
@click.option("--role", type=_role, metavar=_ROLES, help="Role. A lower role revokes tokens with a higher one.")
@click.option("--email", metavar="ADDRESS", help="Email address; '' removes it.")
@click.option("--disabled/--enabled", default=None, help="Disable the user and revoke all tokens, or enable the user.")
@click.pass_obj
def set_(call: Invocation, *, username: str, role: str | None, email: str | None, disabled: bool | None) -> None:
    """Change a user; omitted options keep their values."""
    user = call.run(call.operation(users.Set, username=username, role=role, email=email, disabled=disabled))
    call.output.one(user, plain(f"{user.username} is {'disabled' if user.disabled_at else user.role}"))


@command.verb(examples=["coordinator user delete ada"])
@_username
@click.pass_obj
def delete(call: Invocation, *, username: str) -> None:
    """Delete a user. The user's tokens are revoked; projects and sessions stay."""
    call.run(call.operation(users.Delete, username=username))
    call.output.one({"username": username, "deleted": True}, f"deleted {plain(username)}")
