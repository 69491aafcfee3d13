"""``coordinator schema``."""

from __future__ import annotations

import click

from coordinator.cli.command import noun
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain

command = noun("The database schema: apply, verify and print it.")


NOTHING = "nothing to apply: up to date"


@command.verb(
    examples=[
        "coordinator schema apply --url postgresql://owner@db.example/agents",
        "coordinator schema apply --dry-run > upgrade.sql",
    ]
)
@click.option("--dry-run", is_flag=True, help="Print the pending SQL as a script for psql, and apply nothing.")
@click.pass_obj
def apply(call: Invocation, *, dry_run: bool) -> None:
    """Apply this program's schema to the database. Repeated and concurrent runs are safe.

    A schema of a newer release is not changed.
    """
    from coordinator.db import schema  # noqa: PLC0415

    if dry_run:
        call.output.raw(call.on_connection(schema.pending) or f"-- {NOTHING}\n")
        return
    applied = call.on_connection(schema.apply)
    newer = None if applied else call.on_connection(schema.verify)
    text = NOTHING
    if applied:
        text = f"applied {len(applied)} files: {', '.join(applied)}"
    elif newer:
        text = f"nothing to apply: {_ahead(newer)}"
    call.output.one({"applied": applied, "newer": newer}, text)


@command.verb(examples=["coordinator schema verify && echo fits"])
@click.pass_obj
def verify(call: Invocation) -> None:
    """Verify that the schema supports this program. Exit code 6: it does not.

    The schema can be the program's own, or that of a newer release.
    """
    from coordinator.db import schema  # noqa: PLC0415

    newer = call.on_connection(schema.verify)
    text = _ahead(newer) if newer else "the database has this program's schema"
    call.output.one({"verified": True, "newer": newer}, text)


def _ahead(newer: str) -> str:
    return f"the database has the schema of a newer program, coordinator {plain(newer)}, which serves this one"


@command.verb(examples=["coordinator schema status"])
@click.pass_obj
def status(call: Invocation) -> None:
    """List the schema's files and their state in the database. Warn about an outdated embedded PostgreSQL.

    pending, changed: will be applied. newer: from a newer release, which this program does not change. edited: refused.
    """
    from coordinator import embedded  # noqa: PLC0415
    from coordinator.db import schema  # noqa: PLC0415

    found = call.on_connection(schema.status)
    call.output.many(found, ("kind", "name", "state", "applied_at"), empty="There are no files.")
    server = None if call.config.database_url else embedded.find(call.config.data_dir)
    if server and server.upgrade:
        call.output.note(str(server.upgrade))


@command.verb(name="print", examples=["coordinator schema print | psql -f - postgresql://owner@db.example/agents"])
@click.pass_obj
def print_(call: Invocation) -> None:
    """Print the schema as a script for psql, for an empty database. This needs no database."""
    from coordinator.db import schema  # noqa: PLC0415

    call.output.raw(schema.script())


@command.verb(examples=["coordinator schema grant agents_app"])
@click.argument("role")
@click.pass_obj
def grant(call: Invocation, *, role: str) -> None:
    """Let a database role run the daemon. The role cannot change the schema."""
    from coordinator.db import schema  # noqa: PLC0415

    call.on_connection(lambda connection: schema.grant(connection, role))
    call.output.one({"role": role, "granted": True}, f"granted to {plain(role)}")
