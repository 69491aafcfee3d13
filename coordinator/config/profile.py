"""Settings from a profile of ``coordinator.yaml``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from coordinator.config.file import read
from coordinator.config.settings import PREFIX, SETTINGS
from coordinator.config.store import store_url
from coordinator.config.value import Given
from coordinator.errors import ConfigurationError
from coordinator.suggestion import suggestion

__all__ = ["from_profile", "parse"]

FILE = "coordinator.yaml"
NESTED = {  # the names that other programs use in the same file
    "db.history.retention_days": "history_retention_days",
    "db.history.max_entries": "history_max_entries",
    "store.connection_string": "database_url",
}
STORE_TYPE = "store.type"  # the type of the connection string


def from_profile(
    profile: str | None, file: str | None, environment: Mapping[str, str], note: Callable[[str], None]
) -> dict[str, Given]:
    """Read the settings of the chosen profile, if there is one. ``note`` receives notices for the user.

    Raises: ``ConfigurationError``.
    """
    wanted = file or environment.get(f"{PREFIX}CONFIG") or None
    home = Path(environment.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    places = [Path(wanted).expanduser()] if wanted else [Path(FILE), home / "coordinator" / FILE]
    origin = "--config" if file else f"{PREFIX}CONFIG"
    path = next((place for place in places if wanted or place.is_file()), None)
    name = profile or environment.get(f"{PREFIX}PROFILE") or None
    if path is None:
        if name is None:
            return {}
        raise ConfigurationError(
            f'profile "{name}" not found: there is no {FILE}',
            hint=f"Create {' or '.join(str(place) for place in places)}, or give --config FILE.",
        )
    document = parse(path, read(path, origin))
    _known(document, ("profile", "profiles", "shell"), str(path))
    name = name or document.get("profile")
    settings = _settings_of(document.get("profiles") or {}, name, path)
    where = f'profile "{name}" in {path}'
    files = [f"{setting.name}_file" for setting in SETTINGS.values() if setting.secret]
    _known(settings, (*SETTINGS, *files, *NESTED, STORE_TYPE), where)
    if (kind := settings.pop(STORE_TYPE, None)) is not None:
        address = settings.get("store.connection_string")
        settings["store.connection_string"], told = store_url(kind, address, f"{STORE_TYPE} of {where}")
        if told:
            note(told)
    return dict(_given(settings, where, path.parent))


def _settings_of(profiles: object, name: object, path: Path) -> dict[Any, Any]:
    """Return the settings of the profile with this name, if there is a name."""
    if not isinstance(profiles, dict) or not all(isinstance(key, str) for key in profiles):
        raise ConfigurationError(f"profiles in {path} is not a mapping", hint="Write profiles: {dev: {port: 7420}}.")
    if name is None:
        return {}
    if not isinstance(name, str) or name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigurationError(
            f'profile "{name}" not found in {path}',
            hint=suggestion(str(name), profiles, f"The file has: {known}."),
        )
    settings = profiles[name] or {}
    if not isinstance(settings, dict):
        raise ConfigurationError(f'profile "{name}" in {path} is not a mapping', hint="Write it as setting: value.")
    return _flat(settings)


def _given(settings: Mapping[str, Any], profile: str, folder: Path) -> Iterator[tuple[str, Given]]:
    """Yield each setting, and read secrets from their files, whose paths are relative to ``folder``."""
    for key, value in settings.items():
        if value is None:
            continue
        where = f"{key} of {profile}"
        setting = NESTED.get(key) or (key if key in SETTINGS else key.removesuffix("_file"))
        if setting != key and settings.get(setting) is not None:
            raise ConfigurationError(f"{where}: {setting} is set, too", hint="Remove one of the two.")
        if key in SETTINGS or key in NESTED:
            yield setting, Given(value, where, 2)
            continue
        if not isinstance(value, str):
            raise ConfigurationError(f"{where} is not a path", hint="Write the path of a file as text.")
        secret = folder / Path(value).expanduser()
        yield setting, Given(read(secret, where).strip(), where, 2, secret.absolute())


def _flat(settings: Mapping[Any, object]) -> dict[Any, Any]:
    """Replace nested mappings by dotted names, such as db.history.max_entries."""
    flat: dict[Any, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and any(name.startswith(f"{key}.") for name in (*NESTED, STORE_TYPE)):
            flat |= _flat({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            flat[key] = value
    return flat


def _known(settings: Mapping[Any, object], known: tuple[str, ...], where: str) -> None:
    for key in settings:
        if key not in known:
            raise ConfigurationError(
                f'unknown setting "{key}" in {where}',
                hint=suggestion(str(key), known, f"Known settings: {', '.join(known)}."),
            )


def parse(path: Path, text: str) -> dict[Any, Any]:
    """Parse a file that contains a mapping.

    Raises: ``ConfigurationError``.
    """
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - slow to import, and most calls have no file

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        # Not the parser's message: it quotes the line, which may contain a password.
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{path} is not valid YAML{where}", hint="Check indentation and quotes.") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} is not a mapping", hint="Begin it with profiles:")
    return document
