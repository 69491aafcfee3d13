"""``coordinator schema``."""

from __future__ import annotations

import click

from coordinator.cli.command import noun
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain

command = noun("The database schema: apply, verify and print it.")


@command.verb(examples=["coordinator schema apply --url postgresql://owner@db.example/agents"])
@click.pass_obj
def apply(call: Invocation) -> None:
    """Apply this program's schema to the database. Repeated and concurrent runs are safe."""
    from coordinator.db import schema  # noqa: PLC0415

    applied = call.on_connection(schema.apply)
    text = f"applied {len(applied)} files: {', '.join(applied)}" if applied else "nothing to apply: up to date"
    call.output.one({"applied": applied}, text)


@command.verb(examples=["coordinator schema verify && echo fits"])
@click.pass_obj
def verify(call: Invocation) -> None:
    """Verify that the schema fits this program. Exit code 6: it does not."""
    from coordinator.db import schema  # noqa: PLC0415

    call.on_connection(schema.verify)
    call.output.one({"verified": True}, "the database has this program's schema")


@command.verb(examples=["coordinator schema status"])
@click.pass_obj
def status(call: Invocation) -> None:
    """List the schema's files and their state in the database. Warn of an outdated embedded PostgreSQL."""
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
    """Print the schema as a script for psql. This needs no database."""
    from coordinator.db import schema  # noqa: PLC0415

    call.output.raw(schema.script())


@command.verb(examples=["coordinator schema grant agents_app"])
@click.argument("role")
@click.pass_obj
def grant(call: Invocation, *, role: str) -> None:
    """Let a database role run the daemon. It may not change the schema."""
    from coordinator.db import schema  # noqa: PLC0415

    call.on_connection(lambda connection: schema.grant(connection, role))
    call.output.one({"role": role, "granted": True}, f"granted to {plain(role)}")
