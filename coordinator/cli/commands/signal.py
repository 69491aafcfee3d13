"""``coordinator signal``."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from coordinator.cli.command import acting_agent, noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.cli.values import DURATION, INTEGER, read_text, read_value
from coordinator.operations import signals

command = noun("Signals: keys with JSON values, versions and TTL.")

COLUMNS = ("key", "value", "version", "expires_at", "actor", "updated_at", "critical")


@command.verb(
    name="set",
    examples=[
        "coordinator signal set build/42/COMPLETED true",
        "coordinator signal set build/42/REJECTED 'no tests' --ttl 2h",
        "coordinator signal set plan '{\"step\": 2}' --expect 7     # only if it has version 7",
        "coordinator signal set leader me --expect 0 --critical    # only if it is not set; never expires",
        "git log -1 --format=%s | coordinator signal set last-commit -",
    ],
)
@click.argument("key")
@click.argument("value")
@click.option("--ttl", type=DURATION, help="Expire it after this long.  [default: 24h]")
@click.option("--critical", is_flag=True, help="Never expire it.")
@click.option(
    "--expect", type=INTEGER, metavar="VERSION", help="Set it only if it has this version; 0: only if it is not set."
)
@acting_agent(help="Agent that sets it.", required=False)
@click.option("--ephemeral", is_flag=True, help="Delete it when the agent ends.")
@click.option("--text", "form", flag_value="text", help="Take VALUE as text, even if it is JSON, such as 1.10.")
@click.option("--json", "form", flag_value="json", help="Reject a VALUE that is not JSON.")
@click.pass_obj
def set_(call: Invocation, /, *, key: str, value: str, form: str | None, **options: Any) -> None:
    """Set a signal. Rules may clear other signals.

    VALUE is JSON if it parses as JSON, otherwise text. If it is "-", it is read from standard input.
    """
    content = read_text(value)
    if value == "-":
        content = content.removesuffix("\n")
    signal = call.run(call.operation(signals.Set, key=key, value=read_value(content, form or ""), **options))
    end = f"expires {age(signal.expires_at)}" if signal.expires_at else "critical"
    call.output.one(signal, f"{plain(key)} is at version {signal.version}, {end}")


@command.verb(
    examples=[
        "coordinator signal get build/42/COMPLETED",
        "coordinator signal get last-commit --value     # only the value; text without quotes",
    ]
)
@click.argument("key")
@click.option("--value", "only_value", is_flag=True, help="Print only the value; text without quotes.")
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
        "coordinator signal list --limit 100     # and the cursor of the next page",
    ]
)
@click.option("--prefix", default="", metavar="P", help="List only keys with this prefix.")
@paged
@click.pass_obj
def list_(call: Invocation, *, prefix: str, after: str | None, limit: int | None) -> None:
    """List signals, by key."""
    operation = signals.List(project=call.project, prefix=prefix)
    call.list(operation, COLUMNS, after=after, limit=limit, empty="No signals are set.")


@command.verb(examples=["coordinator signal delete build/42/COMPLETED", "coordinator signal delete plan --expect 7"])
@click.argument("key")
@click.option("--expect", type=INTEGER, metavar="VERSION", help="Delete it only if it has this version.")
@click.pass_obj
def delete(call: Invocation, *, key: str, expect: int | None) -> None:
    """Delete a signal."""
    version = call.run(call.operation(signals.Delete, key=key, expect=expect))
    call.output.one(
        {"key": key, "version": version, "deleted": True}, f"deleted {plain(key)}, it was at version {version}"
    )
