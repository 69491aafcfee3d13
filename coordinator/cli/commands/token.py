"""``coordinator token``."""

from __future__ import annotations

from datetime import timedelta

import click
import msgspec

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.cli.values import DURATION, INTEGER
from coordinator.model.token import Role, new_secret
from coordinator.operations import tokens

command = noun("Tokens: access to HTTP, with a role and a project.")

COLUMNS = (
    "id", "name", "role", "project", "username", "expires_at", "last_used_at", "revoked_at", "prefix", "created_at",
)  # fmt: skip


@command.verb(
    examples=[
        "coordinator token create ci --role agent --project shop",
        "coordinator token create boss --role manager --everywhere --ttl 7d",
        "coordinator token create laptop --role agent --user ada",
        "TOKEN=$(coordinator -o text token create dashboard --role reader)",
    ]
)
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.name for role in Role]),
    metavar="|".join(role.name for role in Role),
    required=True,
    help="Role; each role includes the previous one.",
)
@click.option("--everywhere", is_flag=True, help="Give access to all projects; implied by admin.")
@click.option("--ttl", type=DURATION, default="90d", show_default=True, help="Expire it after this long.")
@click.option(
    "--user", "username", metavar="NAME", help="User who owns it; the token ends when the user is disabled or deleted."
)
@click.pass_obj
def create(call: Invocation, *, name: str, role: str, everywhere: bool, ttl: timedelta, username: str | None) -> None:
    """Create a token, and print its secret. Only its hash is stored, so it cannot be printed again."""
    secret = new_secret()
    project = None if everywhere or role == Role.admin.name else call.project
    token = call.run(
        call.operation(
            tokens.Create,
            name=name,
            role=role,
            hash=secret.hash,
            prefix=secret.prefix,
            project=project,
            ttl=ttl,
            username=username,
        )
    )
    where = f"project {project}" if project else "all projects"
    call.output.note(
        plain(f"token {token.id}: {role} of {where}, expires {age(token.expires_at)}; shown only this once:")
    )
    call.output.one(msgspec.structs.asdict(token) | {"secret": secret.text}, secret.text)


@command.verb(examples=["coordinator token list"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the tokens of all projects, without their secrets."""
    call.list(tokens.List(), COLUMNS, after=after, limit=limit, empty="There are no tokens.")


@command.verb(examples=["coordinator token revoke 3"])
@click.argument("token", type=INTEGER, metavar="ID")
@click.pass_obj
def revoke(call: Invocation, *, token: int) -> None:
    """Revoke a token, and close its streams."""
    revoked = call.run(call.operation(tokens.Revoke, token=token))
    call.output.one(
        {"token": token, "revoked": revoked},
        f"revoked token {token}" if revoked else f"token {token} was already revoked",
    )
