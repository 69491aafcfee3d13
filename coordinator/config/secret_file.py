"""Secrets that may change while the program runs: a file is read again whenever its secret is used.

A connection that is opened, or a request that is sent, uses what the file holds at that moment; what is open stays open. A file
that cannot be used (absent, half written, malformed) changes nothing: the last good secret stays, with a warning.

What it deliberately does not do: follow an address to another database. Connections of one process would then belong to two.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from coordinator.config.file import read
from coordinator.errors import ConfigurationError

__all__ = ["SecretFile", "current"]


class SecretFile(str):
    """A secret as it was in its file when the settings were loaded; ``current`` returns what it is now.

    ``check`` gets the first secret and another one, and raises ``ConfigurationError`` if that cannot take its place.
    """

    __slots__ = ("_check", "_last", "_origin", "_path", "_refused")

    _path: Path
    _origin: str
    _check: Callable[[str, str], None]
    _last: str
    _refused: str | None

    def __new__(cls, secret: str, path: Path, origin: str, check: Callable[[str, str], None]) -> Self:
        """Remember the file beside the secret; ``origin`` names it in messages."""
        made = super().__new__(cls, secret)
        made._path, made._origin, made._check = path, origin, check
        made._last, made._refused = secret, None
        return made

    def read_again(self) -> str:
        """Return the secret that the file holds now, or the last good one."""
        import structlog  # noqa: PLC0415 - most commands never come here, and it is slow to import

        try:
            found = read(self._path, self._origin).strip()
            if found != self._last:
                self._check(self, found)
                self._last = found
                structlog.get_logger().info("secret.reloaded", setting=self._origin)
            self._refused = None
        except ConfigurationError as error:
            if self._refused != error.message:  # once, not for each connection
                self._refused = error.message
                structlog.get_logger().warning("secret.refused", setting=self._origin, error=error.message)
        return self._last


def current(secret: str) -> str:
    """Return what a secret is now: if it comes from a file, what that holds."""
    return secret.read_again() if isinstance(secret, SecretFile) else secret
