"""The command-line flags of one run, and the settings that follow from them."""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import cached_property

from coordinator import config as settings

__all__ = ["CommandLine"]


class CommandLine:
    """The settings of a run. ``flags`` maps a setting to the flag as written and its value."""

    def __init__(self) -> None:
        self.flags: dict[str, tuple[str, str]] = {}
        self.profile: str | None = None
        self.file: str | None = None
        self.wide = False
        self.at_least: str | None = None
        self.max_lag: timedelta | None = None
        self.position = False

    @cached_property
    def config(self) -> settings.Config:
        """The settings.

        Raises: ``ConfigurationError``.
        """
        return settings.load(profile=self.profile, file=self.file, flags=self.flags, note=_note)

    def dsn(self, *, direct: bool = False) -> str:
        """Return the address of the database or daemon; with ``direct``, the address that bypasses any pooler.

        Raises: ``DatabaseUnavailable`` if no address is configured and no embedded server runs.
        """
        if self.config.database_url is not None:
            return (self.config.direct_url if direct else None) or self.config.database_url
        from coordinator import embedded  # noqa: PLC0415

        return embedded.address(self.config.data_dir)


def _note(text: str) -> None:
    from coordinator.cli.output import plain  # noqa: PLC0415 - slow to import, and rarely needed

    sys.stderr.write(f"{plain(text)}\n")
