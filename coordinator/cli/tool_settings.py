"""Shared by ``hook`` and ``mcp``: entries of the coordinator in the settings of a tool."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from coordinator.cli.command import confirm
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.errors import ConfigurationError, InvalidArgument

if TYPE_CHECKING:
    from coordinator.hooks.dialects.entries import SettingsScope, Setup
    from coordinator.hooks.install.change import Change

__all__ = [
    "TOOLS",
    "Installation",
    "State",
    "apply",
    "daemon",
    "located",
    "notes",
    "place",
    "program",
    "quoted",
    "scopes",
    "states",
]

TOOLS = click.Choice(["claude-code", "codex", "copilot", "cursor", "gemini", "vscode"])


class Installation(msgspec.Struct, frozen=True):
    """The change of a file, or with ``--dry-run`` the planned change. ``copy`` is the backup of its former content."""

    tool: str
    file: str
    changed: bool
    difference: str
    copy: str | None
    note: str


class State(msgspec.Struct, frozen=True):
    """The state of the entries in a file: installed, outdated, missing, or what is wrong with the file.

    ``project`` is the project of sessions here, if it does not depend on the settings of the coordinator.
    """

    tool: str
    scope: str
    state: str
    file: str
    project: str | None = None


def scopes() -> list[click.Option]:
    """Make the options that choose the settings; they replace the option for the name of a project."""
    return [
        click.Option(["--project", "scope"], flag_value="project", help="Settings of this repository.  [default]"),
        click.Option(["--user", "scope"], flag_value="user", help="Settings of the user, for all repositories."),
    ]


def place(scope: str | None) -> tuple[SettingsScope, Path]:
    """Return a scope and the folder to which its files are relative."""
    from coordinator.hooks.dialects.entries import SettingsScope  # noqa: PLC0415

    if scope == SettingsScope.USER:
        return SettingsScope.USER, Path.home()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".git").exists():
            return SettingsScope.PROJECT, folder
    raise InvalidArgument(f"{here} is not in a repository", hint="Go to the repository, or give --user.")


def located(setup: Setup, scope: SettingsScope, root: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the path of the file of a setup."""
    if scope == "user" and setup.moved and (folder := environment.get(setup.moved[0])):
        return Path(folder) / setup.file.relative_to(setup.moved[1])
    return root / setup.file


def program() -> list[str]:
    """Return the command that starts this program: its name if the shell finds it, otherwise its path."""
    import shutil  # noqa: PLC0415 - slow to import, and not needed for "hook run"

    return ["coordinator"] if shutil.which("coordinator") else [str(Path(sys.argv[0]).resolve())]


def notes(setup: Setup) -> str:
    """Return what the user of new entries still has to do."""
    import shutil  # noqa: PLC0415

    found = shutil.which("coordinator")
    passing = found is not None and sys.prefix != sys.base_prefix and Path(found).parent == Path(sys.prefix, "bin")
    note = (
        f"coordinator is in the PATH only while the virtual environment {sys.prefix} is active: start the tool there."
    )
    return " ".join(filter(None, (setup.note, note if passing else "")))


def daemon(call: Invocation) -> str | None:
    """Return the address in ``--url``; a setting in the environment does not count."""
    flag = call.flags.get("database_url")
    return flag[1].rstrip("/") if flag else None


def apply(
    call: Invocation, tool: str, plan: Callable[[], Sequence[Change]], *, note: str, yes: bool, dry_run: bool
) -> None:
    """Show the changes, ask, and make them."""
    from coordinator.hooks.install import file  # noqa: PLC0415

    shown = plan()
    wanted = [change for change in shown if change.before != change.after]
    if not call.output.json:
        for change in wanted:
            for line in change.difference().split("\n")[:-1]:
                call.output.line("\t".join(map(plain, line.split("\t"))))
    copies: dict[Path, Path | None] = {}
    if wanted and not dry_run:
        confirm("Make these changes?", yes=yes, deed="make these changes")
        with ExitStack() as locks:
            for folder in sorted({change.path.resolve().parent for change in wanted}):
                locks.enter_context(file.locked(folder / "settings"))
            shown = plan() if yes else shown  # another installation may have changed the files meanwhile
            for change in shown:
                copies[change.path] = change.write()
    results = [
        Installation(
            tool=tool,
            file=str(change.path),
            changed=change.before != change.after,
            difference=change.difference(),
            copy=str(copy) if (copy := copies.get(change.path)) else None,
            note=note if change is shown[0] else "",
        )
        for change in shown
    ]
    call.output.many(results, ["file", "changed", "copy"], empty="")
    if note and wanted:
        call.output.note(note)


def states(
    call: Invocation,
    tools: Sequence[str],
    scope: str | None,
    setup: Callable[[str, SettingsScope, Path], Setup],
    project: str | None = None,
) -> None:
    """Show the state of the entries in the settings of tools, in one scope or both."""
    from coordinator.hooks.dialects.entries import SettingsScope  # noqa: PLC0415
    from coordinator.hooks.install.change import installed  # noqa: PLC0415

    found = []
    for wanted in [scope] if scope else list(SettingsScope):
        try:
            kind, root = place(wanted)
        except InvalidArgument:
            if scope:
                raise
            continue
        for tool in tools:
            try:
                entries = setup(tool, kind, root)
            except InvalidArgument:  # the tool has no settings in this scope
                continue
            path = located(entries, kind, root)
            try:
                state = installed(path, entries)
            except ConfigurationError as error:
                state = error.message.removeprefix(f"{path}: ")
            found.append(State(tool=tool, scope=str(kind), state=state, file=str(path), project=project))
    call.output.many(found, ["tool", "scope", "state", "file"], empty="No settings.")


def quoted(command: Sequence[str]) -> str:
    """Quote a command line for a shell."""
    return shlex.join(command)
