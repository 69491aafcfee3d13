"""One value with its source, and its conversion to the setting's type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from coordinator.config.settings import Setting
from coordinator.errors import ConfigurationError
from coordinator.model import duration
from coordinator.suggestion import suggestion

__all__ = ["Given", "convert"]


class Given(msgspec.Struct, frozen=True):
    """A value as given, its source, and the level of the source: the lowest level wins. ``path`` is the file that contains a secret."""

    value: object
    origin: str
    level: int
    path: Path | None = None


def convert(setting: Setting, given: Given) -> Any:
    """Convert a YAML scalar or a text to the setting's type.

    Raises: ``ConfigurationError``, which never contains a secret.
    """
    if isinstance(given.value, (bool, dict, list)) or not isinstance(given.value, (str, int, float)):
        raise ConfigurationError(f"{given.origin} is neither text nor a number", hint="Put quotes around text.")
    text = str(given.value).strip()
    shown = "" if setting.secret else f': "{text[:100]}"'
    if setting.choices:
        if text not in setting.choices:
            raise ConfigurationError(
                f"{given.origin}{shown} is not a valid {setting.name.replace('_', ' ')}",
                hint=suggestion(text.lower(), setting.choices, f"Use one of {', '.join(setting.choices)}."),
            )
        return text
    if not text or "\0" in text:
        raise ConfigurationError(f"{given.origin} is empty", hint="Give a value, or omit it.")
    if setting.type in (str, str | None):
        return text
    if setting.type in (Path, Path | None):
        return Path(text).expanduser()
    whole = setting.type in (int, int | None)
    try:
        value: Any = int(text) if whole else duration.parse(text)
        number = value if whole else value.total_seconds()
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{given.origin}{shown} is not a {'whole number' if whole else 'duration'}",
            hint="Give a whole number." if whole else duration.HINT,
        ) from None
    if not setting.min <= number <= setting.max:
        raise ConfigurationError(
            f"{given.origin}{shown} is out of range",
            hint=f"Give {setting.min:.16g} to {setting.max:.16g}{'' if whole else ' seconds'}.",
        )
    return number if setting.type is float else value
