"""The project and work tree of a command, as hooks see them, with flags and settings applied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.hooks.place import Place, locate

if TYPE_CHECKING:
    from coordinator.cli.given import CommandLine

__all__ = ["located"]


def located(call: CommandLine, folder: str | Path, worktrees: str | None = None) -> Place:
    """Return the place of a directory; ``--project``, ``worktrees`` and settings take precedence over the repository.

    Raises: ``ConfigurationError``.
    """
    environ = dict(os.environ)
    if "project" in call.flags:
        environ["COORDINATOR_PROJECT"] = call.flags["project"][1]
    environ["COORDINATOR_WORKTREES"] = worktrees or call.config.worktrees or ""
    return locate(str(folder), environ)
