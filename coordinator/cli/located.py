"""Where a command works, as hooks see it: the project and the work tree, with what flags and settings say of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.hooks.place import Place, locate

if TYPE_CHECKING:
    from coordinator.cli.given import CommandLine

__all__ = ["located"]


def located(call: CommandLine, folder: str | Path, worktrees: str | None = None) -> Place:
    """Return the place of a directory; ``--project``, ``worktrees`` and settings come before what the repository says.

    Raises: ``ConfigurationError``.
    """
    environ = dict(os.environ)
    if "project" in call.flags:
        environ["COORDINATOR_PROJECT"] = call.flags["project"][1]
    environ["COORDINATOR_WORKTREES"] = worktrees or call.config.worktrees or ""
    return locate(str(folder), environ)
