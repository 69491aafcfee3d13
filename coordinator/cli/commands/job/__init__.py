"""``coordinator job``."""

from coordinator.cli.commands.job import control, enqueue, read, wait, work  # noqa: F401 - each adds its verbs
from coordinator.cli.commands.job.noun import command

__all__ = ["command"]
