"""Small text files that contain settings."""

from __future__ import annotations

from pathlib import Path

from coordinator.errors import ConfigurationError

__all__ = ["MAX_FILE_BYTES", "read"]

MAX_FILE_BYTES = 1_000_000


def read(path: Path, origin: str) -> str:
    """Read a file that ``origin`` names.

    Raises: ``ConfigurationError``.
    """
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigurationError(f"{path}, named by {origin}, is too large", hint="Is it the right file?")
        return content.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}, named by {origin}, is not UTF-8", hint="Is it the right file?") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"{path}, named by {origin}, cannot be read: {reason}", hint="Give a file that this user can read."
        ) from None
