"""Secrets that may change while the program runs: a file is read again whenever its secret is used.

A new connection or request uses the current content of the file; open connections continue. If a file cannot be used
(missing, partially written, malformed), the last valid secret stays in use, and a warning is logged.

What it deliberately does not do: follow an address to another database. The connections of one process would then
belong to two databases.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from coordinator.config.file import read
from coordinator.errors import ConfigurationError

__all__ = ["SecretFile", "current"]


class SecretFile(str):
    """A secret with its value when the settings were loaded; ``current`` returns its value now.

    ``check`` receives the first secret and a new one, and raises ``ConfigurationError`` if the new one cannot replace
    it.
    """

    __slots__ = ("_check", "_last", "_origin", "_path", "_refused")

    _path: Path
    _origin: str
    _check: Callable[[str, str], None]
    _last: str
    _refused: str | None

    def __new__(cls, secret: str, path: Path, origin: str, check: Callable[[str, str], None]) -> Self:
        """Store the file with the secret; ``origin`` names it in messages."""
        made = super().__new__(cls, secret)
        made._path, made._origin, made._check = path, origin, check
        made._last, made._refused = secret, None
        return made

    def read_again(self) -> str:
        """Return the secret that is in the file now, or else the last valid one."""
        import structlog  # noqa: PLC0415 - slow to import, and not needed by most commands

        try:
            found = read(self._path, self._origin).strip()
            if found != self._last:
                self._check(self, found)
                self._last = found
                structlog.get_logger().info("secret.reloaded", setting=self._origin)
            self._refused = None
        except ConfigurationError as error:
            if self._refused != error.message:  # log it once, not for each connection
                self._refused = error.message
                structlog.get_logger().warning("secret.refused", setting=self._origin, error=error.message)
        return self._last


def current(secret: str) -> str:
    """Return the current value of a secret: if it comes from a file, read it again."""
    return secret.read_again() if isinstance(secret, SecretFile) else secret
