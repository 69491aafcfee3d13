"""One value: where it was given, and what type of the settings it has to become."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from coordinator.config.settings import RANGES, SECRETS
from coordinator.errors import ConfigurationError
from coordinator.model import duration

__all__ = ["Given", "convert"]


class Given(msgspec.Struct, frozen=True):
    """A value as it was given: where, and how near to the caller (the smallest is nearest)."""

    value: object
    origin: str
    level: int


def convert(name: str, hint: object, given: Given) -> Any:
    """Make a value of the setting's type; a YAML scalar or a text.

    Raises: ``ConfigurationError``, which never repeats a secret.
    """
    if isinstance(given.value, (bool, dict, list)) or not isinstance(given.value, (str, int, float)):
        raise ConfigurationError(f"{given.origin} is no text or number", hint="Put quotes around a text.")
    text = str(given.value).strip()
    shown = "" if name in SECRETS else f' "{text[:100]}"'
    if get_origin(hint) is Literal:
        choices: tuple[str, ...] = get_args(hint)
        if text not in choices:
            close = get_close_matches(text.lower(), choices, 1)
            raise ConfigurationError(
                f"{given.origin}{shown} is no {name}",
                hint=f"Did you mean {close[0]}?" if close else f"It can be {', '.join(choices)}.",
            )
        return text
    if not text or "\0" in text:
        raise ConfigurationError(f"{given.origin} is empty", hint="Give a value, or leave it out.")
    if hint in (str, str | None):
        return text
    if hint in (Path, Path | None):
        return Path(text).expanduser()
    try:
        value: Any = int(text) if hint is int else duration.parse(text)
        number = value if hint is int else value.total_seconds()
    except (ValueError, OverflowError):
        wanted = "Give a whole number." if hint is int else duration.HINT
        what = "whole number" if hint is int else "duration"
        raise ConfigurationError(f"{given.origin}{shown} is no {what}", hint=wanted) from None
    least, most = RANGES[name]
    if not least <= number <= most:
        unit = "" if hint is int else " seconds"
        raise ConfigurationError(
            f"{given.origin}{shown} is out of range", hint=f"It can be {least:.16g} to {most:.16g}{unit}."
        )
    return number if hint is float else value
