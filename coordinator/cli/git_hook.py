"""Runs a git hook. It ends within seconds, and prints one line if the check failed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

import click
import msgspec
from click.exceptions import Exit

from coordinator.cli.invocation import Invocation
from coordinator.cli.located import located
from coordinator.cli.output import plain
from coordinator.client import brief
from coordinator.errors import ConfigurationError, CoordinatorError, NotFound
from coordinator.hooks import git_hooks
from coordinator.hooks.place import checked

__all__ = ["run"]

TIMEOUT_S = 3.0


def run(call: Invocation, hook: str, arguments: Sequence[str]) -> None:
    """Check what is being committed, merged or pushed, or release what was committed.

    If ``coordinator.unreachable`` in git's configuration is deny, or an unknown value, a failed check refuses the action.
    """
    refused = None
    try:
        pushed = git_hooks.pushed_refs() if hook == "pre-push" else ""
        paths = git_hooks.changed(hook, pushed, arguments[0] if arguments else "")
        if paths:
            refused = _through(call, hook, paths)
    except NotFound:
        return  # no agent has used this project
    except CoordinatorError as error:
        if hook == "post-commit":
            return  # leases expire without this as well
        click.echo(plain(f"coordinator: {error.message}; nothing was checked"), err=True)
        refused = _unchecked()
    if refused:
        for line in refused.split("\n"):
            click.echo(plain(line), err=True)
        raise Exit(4)


def _unchecked() -> str | None:
    """Return why a failed check refuses the action, or None if it does not."""
    try:
        deny = checked("unreachable", git_hooks.setting("coordinator.unreachable") or "") == "deny"
    except ConfigurationError as error:
        return f"coordinator: refused, because {error.message}. {error.hint} To continue anyway: --no-verify"
    if not deny:
        return None
    return "coordinator: refused, because git config coordinator.unreachable is deny. To continue anyway: --no-verify"


def _through(call: Invocation, hook: str, paths: dict[str, datetime | None]) -> str | None:
    config = msgspec.structs.replace(call.config, call_timeout_s=min(call.config.call_timeout_s, TIMEOUT_S))
    place = located(call, os.getcwd())  # noqa: PTH109
    agent = config.agent_id or git_hooks.setting("coordinator.agent")
    url = call.dsn()

    async def ask() -> str | None:
        async with brief.opened(url, config) as executor:
            if hook == "post-commit":
                await git_hooks.release(paths, place, executor, agent)
                return None
            return await git_hooks.refusal(hook, paths, place, executor, agent)

    return brief.finish(url, ask())
