"""``coordinator signal``."""

from __future__ import annotations

import sys
from datetime import timedelta
from uuid import UUID

import click
import msgspec

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.cli.values import DURATION, ID, INTEGER, read_json, read_text
from coordinator.errors import InvalidArgument
from coordinator.model.operation import Json
from coordinator.operations import signals

command = noun("Signals: keys with JSON values, versions and TTL.")

COLUMNS = ("key", "value", "version", "critical", "actor", "updated_at", "expires_at")


def _value(text: str, form: str) -> Json:
    """Read a value: as JSON if it is some, else as the text that it is."""
    if form == "text":
        return text
    try:
        return read_json(text, "VALUE")
    except InvalidArgument:
        if form == "json":
            raise
        return text


@command.verb(
    name="set",
    examples=[
        "coordinator signal set build/42/COMPLETED true",
        "coordinator signal set build/42/REJECTED 'no tests' --ttl 2h",
        "coordinator signal set plan '{\"step\": 2}' --expect 7     # only if it is still at version 7",
        "coordinator signal set leader me --expect 0 --critical    # only if it is not set; stays for ever",
        "git log -1 --format=%s | coordinator signal set last-commit -",
    ],
)
@click.argument("key")
@click.argument("value")
@click.option("--ttl", type=DURATION, help="Ends after so long; default 24h.")
@click.option("--critical", is_flag=True, help="Stays until it is deleted.")
@click.option(
    "--expect", type=INTEGER, metavar="VERSION", help="Only if it is at this version; 0: only if it is not set."
)
@click.option("--agent", type=ID, metavar="ID", help="The agent that sets it.")
@click.option("--ephemeral", is_flag=True, help="It ends with the agent.")
@click.option("--text", "form", flag_value="text", help="VALUE is a text, even if it is JSON, as 1.10 is.")
@click.option("--json", "form", flag_value="json", help="VALUE is JSON, or else an error.")
@click.pass_obj
def set_(
    call: Invocation,
    *,
    key: str,
    value: str,
    ttl: timedelta | None,
    critical: bool,
    expect: int | None,
    agent: UUID | None,
    ephemeral: bool,
    form: str | None,
) -> None:
    """Set a signal, and clear what the rules say.

    VALUE is JSON if it parses as JSON, else a text; "-" reads it from standard input.
    """
    content = read_text(value)
    if value == "-":
        content = content.removesuffix("\n")
    signal = call.run(
        signals.Set(
            project=call.project,
            key=key,
            value=_value(content, form or ""),
            ttl=ttl,
            critical=critical,
            expect=expect,
            agent=agent,
            ephemeral=ephemeral,
            actor=call.actor,
        )
    )
    end = f"expires {age(signal.expires_at)}" if signal.expires_at else "critical"
    call.output.one(signal, f"{plain(key)} is at version {signal.version}, {end}")


@command.verb(
    examples=[
        "coordinator signal get build/42/COMPLETED",
        "coordinator signal get last-commit --value     # only the value; a text without quotes",
    ]
)
@click.argument("key")
@click.option("--value", "only_value", is_flag=True, help="Print only the value; a text without quotes.")
@click.pass_obj
def get(call: Invocation, *, key: str, only_value: bool) -> None:
    """Read a signal; exit code 3 if it is not set."""
    signal = call.run(signals.Get(project=call.project, key=key))
    if not only_value:
        call.output.one(signal)
        return
    value = signal.value if isinstance(signal.value, str) else msgspec.json.encode(signal.value).decode()
    call.output.line("\n".join(map(plain, value.split("\n"))) if sys.stdout.isatty() else value)


@command.verb(
    examples=[
        "coordinator signal list",
        "coordinator signal list --prefix build/ | jq -r '.[].key'",
        "coordinator signal list --limit 100     # and how to go on",
    ]
)
@click.option("--prefix", default="", metavar="P", help="Only keys that begin with it.")
@paged
@click.pass_obj
def list_(call: Invocation, *, prefix: str, after: str | None, limit: int | None) -> None:
    """List signals, by key."""
    operation = signals.List(project=call.project, prefix=prefix)
    call.list(operation, COLUMNS, after=after, limit=limit, empty="No signals are set.")


@command.verb(examples=["coordinator signal delete build/42/COMPLETED", "coordinator signal delete plan --expect 7"])
@click.argument("key")
@click.option("--expect", type=INTEGER, metavar="VERSION", help="Only if it is at this version.")
@click.pass_obj
def delete(call: Invocation, *, key: str, expect: int | None) -> None:
    """Delete a signal."""
    version = call.run(signals.Delete(project=call.project, key=key, expect=expect, actor=call.actor))
    call.output.one(
        {"key": key, "version": version, "deleted": True}, f"deleted {plain(key)}, it was at version {version}"
    )
