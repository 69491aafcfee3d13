"""Files that settings are read from: text, and not much of it."""

from __future__ import annotations

from pathlib import Path

from coordinator.errors import ConfigurationError

__all__ = ["FILE_MOST", "read"]

FILE_MOST = 1_000_000  # bytes


def read(path: Path, origin: str) -> str:
    """Read a file that ``origin`` names.

    Raises: ``ConfigurationError``.
    """
    try:
        with path.open("rb") as opened:
            content = opened.read(FILE_MOST + 1)
        if len(content) > FILE_MOST:
            raise ConfigurationError(f"{path}, named by {origin}, is too large", hint="Is it the right file?")
        return content.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}, named by {origin}, is not UTF-8", hint="Is it the right file?") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"{path}, named by {origin}, cannot be read: {reason}", hint="Give a file that this user can read."
        ) from None
