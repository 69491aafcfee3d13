"""``coordinator hook``."""

from __future__ import annotations

import os
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlencode

import click

from coordinator.cli.command import noun
from coordinator.cli.hook_options import CHOICES, DURATIONS
from coordinator.cli.invocation import Invocation
from coordinator.cli.tool_settings import TOOLS, apply, daemon, located, notes, place, program, quoted, scopes, states
from coordinator.cli.values import DURATION

if TYPE_CHECKING:
    from coordinator.hooks.dialects.entries import SettingsScope, Setup

command = noun("Hooks: lock the files that coding agents edit.")

_worktrees = click.option(
    "--worktrees",
    type=click.Choice(CHOICES["worktrees"][0]),
    help="Whether linked work trees of a repository are separate scopes.  [default: the repository's setting, otherwise separate]",
)
MARGIN = timedelta(seconds=30)  # a tool ends a hook that takes longer than its wait by this
# Options of POST /v1/hooks/<dialect>.
QUERY = ("project", "wait", "ttl", "hold", "shared_reads", "unreachable", "worktrees")


@command.verb(
    examples=[
        "coordinator hook run < payload.json",
        "coordinator hook run --dialect codex --wait 1m --hold until-commit --unreachable deny < payload.json",
    ]
)
@click.option("--dialect", metavar="TOOL", help="Tool that calls.  [default: from the payload]")
@click.option(
    "--wait",
    type=DURATION,
    default=DURATIONS["wait"],
    show_default=True,
    help="Wait this long for a file that somebody else holds.",
)
@click.option(
    "--ttl",
    type=DURATION,
    default=DURATIONS["ttl"],
    show_default=True,
    help="Keep a session and its leases for this long after its last call.",
)
@click.option(
    "--hold",
    type=click.Choice(CHOICES["hold"][0]),
    default=CHOICES["hold"][1],
    show_default=True,
    help="Release leases at the end of a turn, or once their files are committed.",
)
@click.option("--shared-reads", is_flag=True, help="Lease files for reading, shared with others that read.")
@click.option(
    "--unreachable",
    type=click.Choice(CHOICES["unreachable"][0]),
    default=CHOICES["unreachable"][1],
    show_default=True,
    help="Answer if the coordinator cannot be reached.",
)
@_worktrees
@click.option(
    "--limit",
    type=DURATION,
    default=DURATIONS["limit"],
    show_default=True,
    help="Apply the policy if the coordinator has not responded this long after the start of the program.",
)
@click.pass_obj
def run(call: Invocation, /, **options: Any) -> NoReturn:
    """Answer a hook of a coding agent.

    The tool writes its event as JSON to standard input, and reads the decision from standard output and the exit code.
    """
    from coordinator.cli.hook_run import Running  # noqa: PLC0415

    Running(call, **options).finish()


def _setup(tool: str, scope: SettingsScope, root: Path, options: tuple[str, ...], url: str | None) -> Setup:
    from coordinator.hooks.dialects import load  # noqa: PLC0415
    from coordinator.hooks.place import locate  # noqa: PLC0415

    given = run.make_context("coordinator hook run", [*options], obj=Invocation()).params  # checks them
    timeout_s = round((given["wait"] + MARGIN).total_seconds())
    command = [*program(), "hook", "run", *options]
    if url is None:
        return load(tool).hooks(scope, quoted(command), None, timeout_s)
    query = {"project": locate(str(root), os.environ).project} if scope == "project" else {}
    for option, value in pairwise([*options, ""]):
        name, _, joined = option.removeprefix("--").replace("-", "_", 1).partition("=")
        if name in QUERY:
            query[name] = "true" if name == "shared_reads" else joined or value
    address = f"{url}/v1/hooks/{tool}" + (f"?{urlencode(query)}" if query else "")
    return load(tool).hooks(scope, quoted([*command, "--url", url]), address, timeout_s)


@command.verb(
    settings=scopes(),
    examples=[
        "coordinator hook install claude-code",
        "coordinator hook install codex --user --yes",
        "coordinator hook install claude-code -- --wait 1m --hold until-commit",
        "coordinator hook install claude-code --worktrees shared",
        "coordinator hook install claude-code --url https://coordinator.agents:7420",
        "coordinator hook install gemini --agents-md --dry-run",
    ],
)
@click.argument("tool", type=TOOLS, metavar="TOOL")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS]")
@_worktrees
@click.option("--agents-md", is_flag=True, help="Also add a paragraph for agents to AGENTS.md.")
@click.option("--dry-run", is_flag=True, help="Show the changes without making them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def install(
    call: Invocation,
    *,
    tool: str,
    options: tuple[str, ...],
    scope: str | None,
    worktrees: str | None,
    agents_md: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Put the hooks into the settings of a tool.

    TOOL is claude-code, codex, copilot, cursor, gemini or vscode. The command shows its changes, and asks before it makes them. The rest
    of the file does not change, and a backup copy is kept beside it. OPTIONS are options of "coordinator hook run". With --url, a tool
    that supports HTTP hooks sends them to a daemon, and reads the token from COORDINATOR_TOKEN.
    """
    options = _with(options, worktrees)
    _change(call, tool, options, scope, install=True, agents_md=agents_md, dry_run=dry_run, yes=yes)


@command.verb(settings=scopes(), examples=["coordinator hook uninstall codex --user --yes"])
@click.argument("tool", type=TOOLS, metavar="TOOL")
@click.option("--agents-md", is_flag=True, help="Also remove the paragraph from AGENTS.md.")
@click.option("--dry-run", is_flag=True, help="Show the changes without making them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def uninstall(call: Invocation, *, tool: str, scope: str | None, agents_md: bool, dry_run: bool, yes: bool) -> None:
    """Remove the hooks from the settings of a tool."""
    _change(call, tool, (), scope, install=False, agents_md=agents_md, dry_run=dry_run, yes=yes)


@command.verb(settings=scopes(), examples=["coordinator hook status", "coordinator hook status claude-code --user"])
@click.argument("tool", type=TOOLS, metavar="[TOOL]", required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS]")
@_worktrees
@click.pass_obj
def status(
    call: Invocation, *, tool: str | None, options: tuple[str, ...], scope: str | None, worktrees: str | None
) -> None:
    """Show where hooks are installed, and this directory's project.

    Hooks are outdated if "install" with the same --url, --worktrees and OPTIONS would write something else.
    """
    from coordinator.hooks.place import locate  # noqa: PLC0415

    url = daemon(call)
    options = _with(options, worktrees)
    tools = [tool] if tool else [*TOOLS.choices]
    project = locate(str(Path.cwd()), os.environ).project
    states(call, tools, scope, lambda name, kind, root: _setup(name, kind, root, options, url), project)
    call.output.note(f"Sessions here belong to the project {project}.")


def _with(options: tuple[str, ...], worktrees: str | None) -> tuple[str, ...]:
    return options if worktrees is None else (*options, "--worktrees", worktrees)


def _change(
    call: Invocation,
    tool: str,
    options: tuple[str, ...],
    scope: str | None,
    *,
    install: bool,
    agents_md: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    from coordinator.hooks.install import agents_md as paragraph  # noqa: PLC0415
    from coordinator.hooks.install.change import Change, planned  # noqa: PLC0415

    kind, root = place(scope)
    setup = _setup(tool, kind, root, options, daemon(call))
    repository = place(None)[1] if agents_md else root

    def plan() -> list[Change]:
        changes = [planned(located(setup, kind, root), setup, install=install)]
        if agents_md:
            changes.append(paragraph.planned(repository / "AGENTS.md", install=install))
        return changes

    apply(call, tool, plan, note=notes(setup) if install else "", yes=yes, dry_run=dry_run)


@command.verb(
    examples=["coordinator hook git install", "coordinator hook git status", "coordinator hook git uninstall"]
)
@click.argument(
    "action",
    type=click.Choice(["install", "uninstall", "status", "pre-commit", "pre-merge-commit", "pre-push", "post-commit"]),
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT]…")
@click.pass_obj
def git(call: Invocation, *, action: str, arguments: tuple[str, ...]) -> None:
    """Install git hooks that protect files locked by others.

    The hooks refuse to commit, merge or push files that another agent has locked. They also catch edits that the hooks of a tool cannot see. Existing hooks are kept, and run first. Git calls the other actions.
    """
    from coordinator.hooks import git_hooks  # noqa: PLC0415 - most calls are others

    if action in git_hooks.HOOKS:
        from coordinator.cli.git_hook import run  # noqa: PLC0415

        run(call, action, arguments)
        return
    if action == "install":
        found = git_hooks.install(program())
    else:
        found = git_hooks.uninstall() if action == "uninstall" else git_hooks.states()
    call.output.many(found, ("hook", "state", "file", "before"), empty="No hooks.")
