"""Settings: the only package that reads the environment.

If several of these sources have a setting, the first one wins: a command-line flag, the environment, the profile, the
default. An empty variable counts as unset. ``settings`` declares every setting; ``docs/settings.md`` lists them and
explains profiles.

A malformed value raises ``ConfigurationError`` before any connection is made. The error names the source of the value
and never contains a secret. Only secrets from files can change while the program runs; see ``secret_file``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from coordinator.config.environment import from_environment
from coordinator.config.profile import from_profile
from coordinator.config.secret_file import SecretFile, current
from coordinator.config.settings import PREFIX, SETTINGS, Config, Setting
from coordinator.config.tls import check_files
from coordinator.config.value import Given, convert
from coordinator.errors import ConfigurationError
from coordinator.model import address
from coordinator.model.token import OBTAIN, SECRET

__all__ = [
    "PREFIX",
    "SETTINGS",
    "Config",
    "Origin",
    "Setting",
    "current",
    "debugging",
    "load",
    "origins",
    "output_form",
]


Check = Callable[[str, str, Mapping[str, str]], None]  # takes a secret, its source, and the environment

_STORE = r"s3://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()-]+){0,20}"


def debugging(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether COORDINATOR_DEBUG asks for stack traces."""
    return environment.get(f"{PREFIX}DEBUG", "") not in ("", "0")


def output_form(environment: Mapping[str, str] = os.environ) -> str:
    """Return the format of errors, even if the settings themselves are wrong."""
    form = environment.get(f"{PREFIX}OUTPUT", "")
    return form if form in ("text", "json") else "auto"


class Origin(msgspec.Struct, frozen=True):
    """One setting in effect: its value in readable form, without secrets (None: unset), and its source."""

    setting: str
    value: str | None
    source: str
    variable: str


def load(
    *,
    profile: str | None = None,
    file: str | None = None,
    flags: Mapping[str, tuple[str, str]] | None = None,
    environment: Mapping[str, str] = os.environ,
    note: Callable[[str], None] = lambda _: None,
) -> Config:
    """Load the settings. ``flags`` maps a setting to the flag as written and its value. ``note`` receives notices for the user.

    Raises: ``ConfigurationError``.
    """
    return _checked(_given(profile, file, flags or {}, environment, note), environment)


def origins(
    *,
    profile: str | None = None,
    file: str | None = None,
    flags: Mapping[str, tuple[str, str]] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> list[Origin]:
    """Return the value and source of every setting; the arguments are those of ``load``.

    Raises: ``ConfigurationError``.
    """
    given = _given(profile, file, flags or {}, environment, lambda _: None)
    config = _checked(given, environment)
    found = []
    for name, setting in SETTINGS.items():
        value = getattr(config, name)
        source = given[name].origin if name in given else "default"
        if name in given and value is None:
            source = f"ignored: {source} does not belong to this database_url"
        elif name not in given and value != setting.default:
            source = "max_connections"  # see _fit_pool
        found.append(Origin(name, None if value is None else setting.written(value), source, setting.variable))
    return found


def _given(
    profile: str | None,
    file: str | None,
    flags: Mapping[str, tuple[str, str]],
    environment: Mapping[str, str],
    note: Callable[[str], None],
) -> dict[str, Given]:
    given = from_profile(profile, file, environment, note)
    given |= from_environment(environment)
    given |= {name: Given(value, spelling, 0) for name, (spelling, value) in flags.items()}
    if environment.get(f"{PREFIX}URL") and "database_url" not in given:  # the flag is --url
        raise ConfigurationError(f"unknown setting {PREFIX}URL", hint=f"Did you mean {PREFIX}DATABASE_URL?")
    return given


def _checked(given: Mapping[str, Given], environment: Mapping[str, str]) -> Config:
    values = {name: convert(SETTINGS[name], one) for name, one in given.items()}
    for name in values.keys() & _SECRETS.keys():
        check, origin, path = _SECRETS[name], given[name].origin, given[name].path
        check(values[name], origin, environment)
        if path is not None:

            def replaces(old: str, new: str, check: Check = check, origin: str = origin) -> None:
                check(new, origin, environment)
                if address.is_database(old) and address.without_credentials(new) != address.without_credentials(old):
                    raise ConfigurationError(
                        f"{origin} names another database or other options", hint="Restart to go to another database."
                    )

            values[name] = SecretFile(values[name], path, origin, replaces)
    if "artifact_store" in values:
        values["artifact_store"] = _store_of(values["artifact_store"], given["artifact_store"].origin)
    # A direct_url from a lower-priority source than the database_url may belong to another database.
    if "direct_url" in given:
        if "database_url" not in given:
            raise ConfigurationError(
                f"{given['direct_url'].origin} is set, but database_url is not",
                hint="Set COORDINATOR_DATABASE_URL, too.",
            )
        if given["direct_url"].level > given["database_url"].level:
            del values["direct_url"]
    _fit_pool(values, given)
    return Config(**values)


def _check_token(token: str, origin: str, _environment: Mapping[str, str]) -> None:
    if not SECRET.fullmatch(token):
        raise ConfigurationError(f"{origin} is not a token", hint=f"A token is coo_…. {OBTAIN}")


def _check_database(url: str, origin: str, environment: Mapping[str, str]) -> None:
    try:
        check_files(address.check(url, environment))
    except address.AddressError as error:
        raise ConfigurationError(f"{origin} {error}", hint=error.hint) from None


def _check_address(url: str, origin: str, environment: Mapping[str, str]) -> None:
    if address.is_database(url):
        _check_database(url, origin, environment)
        return
    try:
        address.check_gateway(url)
    except address.AddressError as error:
        raise ConfigurationError(f"{origin} {error}", hint=error.hint) from None


_SECRETS: Mapping[str, Check] = {
    "token": _check_token,
    "database_url": _check_address,
    "direct_url": _check_database,
    "replica_url": _check_database,
}


def _store_of(url: str, origin: str) -> str:
    if not re.fullmatch(_STORE, url.rstrip("/")):
        raise ConfigurationError(
            f'{origin} "{url[:100]}" is not the address of an object store',
            hint="Write s3://bucket or s3://bucket/prefix.",
        )
    return url.rstrip("/")


def _fit_pool(values: dict[str, Any], given: Mapping[str, Given]) -> None:
    defaults = Config()
    maximum = values.get("max_connections", defaults.max_connections)
    if "min_connections" not in values:
        values["min_connections"] = min(defaults.min_connections, maximum)
    elif values["min_connections"] > maximum:
        raise ConfigurationError(
            f"{given['min_connections'].origin} is {values['min_connections']}, more than max_connections, {maximum}",
            hint="Lower it, or raise max_connections.",
        )
