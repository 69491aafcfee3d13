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

command = noun("Tokens: who may use HTTP, as what, and in which project.")

COLUMNS = ("id", "name", "role", "project", "prefix", "created_at", "expires_at", "last_used_at", "revoked_at")


@command.verb(
    examples=[
        "coordinator token create ci --role agent --project shop",
        "coordinator token create boss --role manager --everywhere --ttl 7d",
        "TOKEN=$(coordinator -o text token create dashboard --role reader)",
    ]
)
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.name for role in Role]),
    required=True,
    help="What it may do; each may do what the one before may.",
)
@click.option("--everywhere", is_flag=True, help="It opens all projects, as an admin's always does.")
@click.option("--ttl", type=DURATION, default="90d", show_default=True, help="Ends after so long.")
@click.pass_obj
def create(call: Invocation, *, name: str, role: str, everywhere: bool, ttl: timedelta) -> None:
    """Make a token, and show its secret: this once, since only its hash is kept."""
    secret = new_secret()
    project = None if everywhere or role == Role.admin.name else call.project
    token = call.run(
        tokens.Create(
            name=name, role=role, hash=secret.hash, prefix=secret.prefix, project=project, ttl=ttl, actor=call.actor
        )
    )
    where = f"project {project}" if project else "all projects"
    call.output.note(plain(f"token {token.id}: {role} of {where}, expires {age(token.expires_at)}; shown this once:"))
    call.output.one(msgspec.structs.asdict(token) | {"secret": secret.text}, secret.text)


@command.verb(examples=["coordinator token list"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List the tokens of all projects, without their secrets, which nobody has."""
    call.list(tokens.List(), COLUMNS, after=after, limit=limit, empty="There are no tokens.")


@command.verb(examples=["coordinator token revoke 3"])
@click.argument("token", type=INTEGER, metavar="ID")
@click.pass_obj
def revoke(call: Invocation, *, token: int) -> None:
    """Revoke a token: it opens nothing from now on, and streams that it opened end."""
    revoked = call.run(tokens.Revoke(token=token, actor=call.actor))
    call.output.one(
        {"token": token, "revoked": revoked},
        f"revoked token {token}" if revoked else f"token {token} was revoked already",
    )
