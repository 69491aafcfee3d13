"""``coordinator config``."""

from __future__ import annotations

import click
from msgspec.structs import replace

from coordinator.cli.command import Verb
from coordinator.cli.invocation import Invocation
from coordinator.config import SETTINGS


@click.command(
    cls=Verb,
    examples=[
        "coordinator config",
        "coordinator config --all",
        "coordinator config --output json | jq -r '.[] | select(.setting == \"port\").value'",
    ],
)
@click.option("--all", "everything", is_flag=True, help="Also show settings with their default.")
@click.pass_obj
def command(call: Invocation, *, everything: bool) -> None:
    """Show the settings in effect, and where they come from.

    JSON output has all settings. Text output has the settings that were set; with --all, all of them.

    The first of these sources that has a setting wins: a command-line flag, the environment, the profile, the default.
    Passwords and tokens are not shown.
    """
    found = call.origins()
    if not call.output.json:
        shown = [one for one in found if everything or one.source != "default"]
        found = [replace(one, value=one.value or f"({SETTINGS[one.setting].unset})") for one in shown]
    call.output.many(
        found,
        ("setting", "value", "source"),
        empty="Every setting has its default; --all shows them.",
    )
