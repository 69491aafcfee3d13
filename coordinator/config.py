"""Settings: the only place that reads the environment.

A setting comes from the first of: a flag of the command line, the environment, the profile, the default. An empty
variable counts as none. Profiles are in ``coordinator.yaml``, which is the file of ``--config`` or COORDINATOR_CONFIG, or else
the first of ``./coordinator.yaml`` and ``~/.config/coordinator/coordinator.yaml``; ``--profile``, COORDINATOR_PROFILE or the file's
own ``profile`` chooses one. A setting marked * may be read from a file: ``database_url_file`` in a profile,
COORDINATOR_DATABASE_URL_FILE. A ``direct_url`` counts only beside a ``database_url`` that is not nearer to the caller: they
belong together.

| setting              | environment                               | default                     | unit     | meaning                                            |
|----------------------|-------------------------------------------|-----------------------------|----------|----------------------------------------------------|
| database_url *       | COORDINATOR_DATABASE_URL, DATABASE_URL    | none: the embedded server   | URL      | the database, postgresql://…; of all but the daemon also a daemon or sidecar, https://… or unix:///… |
| direct_url *         | COORDINATOR_DIRECT_URL                    | database_url                | URL      | the same past any pooler: LISTEN, locks, schema    |
| token *              | COORDINATOR_TOKEN                         | none: without               | text     | what opens the daemon at such an address, coo_…    |
| data_dir             | COORDINATOR_DATA_DIR                      | ~/.local/share/coordinator  | path     | where the embedded server keeps its data           |
| min_connections      | COORDINATOR_MIN_CONNECTIONS               | 5                           | count    | the pool keeps so many; at most max_connections    |
| max_connections      | COORDINATOR_MAX_CONNECTIONS, MAX_CONNECTIONS | 20                       | count    | the pool opens so many                             |
| connect_limit_s      | COORDINATOR_CONNECT_LIMIT_S               | 60                          | duration | daemon, sidecar: wait so long for a first connection |
| call_timeout_s       | COORDINATOR_CALL_TIMEOUT_S                | 30                          | duration | a call to the database is given up after           |
| statement_cache_size | COORDINATOR_STATEMENT_CACHE_SIZE          | 100                         | count    | prepared statements of a connection; 0: none       |
| schema               | COORDINATOR_SCHEMA                        | apply                       | choice   | at start: apply the schema, or only verify it      |
| host                 | COORDINATOR_HOST                          | 127.0.0.1                   | address  | where HTTP listens                                 |
| port                 | COORDINATOR_PORT                          | 7420                        | port     | where HTTP listens; 0: any that is free            |
| access               | COORDINATOR_ACCESS                        | auto                        | choice   | tokens, open (loopback only), or auto: open for the embedded server on loopback |
| hosts                | COORDINATOR_HOSTS                         | none: localhost             | names    | of this daemon, with commas, that Host and Origin may have |
| tls_certificate      | COORDINATOR_TLS_CERTIFICATE               | none: plain HTTP            | path     | PEM file of the certificate with its chain; taken anew when it changes |
| tls_key              | COORDINATOR_TLS_KEY                       | none: plain HTTP            | path     | PEM file of its key                                |
| log_format           | COORDINATOR_LOG_FORMAT                    | auto                        | choice   | json, console, or auto: console on a terminal      |
| log_level            | COORDINATOR_LOG_LEVEL                     | info                        | choice   | debug, info, warning, error                        |
| event_retention      | COORDINATOR_EVENT_RETENTION               | 7d                          | duration | events are pruned after                            |
| directive_retention  | COORDINATOR_DIRECTIVE_RETENTION           | 30d                         | duration | directives are pruned so long after their end      |
| project              | COORDINATOR_PROJECT                       | default                     | name     | the command line's project                         |
| actor                | COORDINATOR_ACTOR                         | none: the database's role   | name     | who does it, in events                             |
| agent                | COORDINATOR_AGENT                         | none: pod_name              | name     | the sidecar's agent                                |
| role                 | COORDINATOR_ROLE                          | none: of no role            | name     | role of the sidecar's agent                        |
| listen               | COORDINATOR_LISTEN                        | 127.0.0.1:7421              | address  | where the sidecar listens, on loopback; or none    |
| socket               | COORDINATOR_SOCKET                        | none: without               | path     | unix socket that the sidecar listens on            |
| pod_name             | COORDINATOR_POD_NAME, POD_NAME            | none: no pod                | name     | the sidecar's pod, as the downward API tells it    |
| pod_namespace        | COORDINATOR_POD_NAMESPACE, POD_NAMESPACE  | none: no pod                | name     | namespace of the pod                               |
| pod_labels           | COORDINATOR_POD_LABELS                    | /etc/podinfo/labels         | path     | file with the labels of the pod                    |
| output               | COORDINATOR_OUTPUT                        | auto                        | choice   | text, json, or auto: text on a terminal            |

COORDINATOR_DEBUG=1 shows where a bug is. Durations are written 30s, 5m, 1h30m, 7d; a plain number is seconds.

Every malformed value raises ``ConfigurationError``, which names where the value came from, before any connection is made, and
never repeats a secret. What is deliberately absent: settings that change while the program runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from coordinator.errors import ConfigurationError
from coordinator.model import address, duration
from coordinator.model.token import SECRET

__all__ = ["Config", "debugging", "load", "output_form"]

PREFIX = "COORDINATOR_"
ALIASES = {
    "database_url": "DATABASE_URL",
    "max_connections": "MAX_CONNECTIONS",
    "pod_name": "POD_NAME",
    "pod_namespace": "POD_NAMESPACE",
}
SECRETS = frozenset({"database_url", "direct_url", "token"})
ADDRESSES = frozenset({"database_url", "direct_url"})
FILE = "coordinator.yaml"
FILE_MOST = 1_000_000  # bytes
_OTHER_VARIABLES = ("config", "profile", "debug")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. Durations are in seconds where the name ends in ``_s``."""

    database_url: str | None = None
    direct_url: str | None = None
    token: str | None = None
    data_dir: Path = Path("~/.local/share/coordinator").expanduser()
    min_connections: int = 5
    max_connections: int = 20
    connect_limit_s: float = 60.0
    call_timeout_s: float = 30.0
    statement_cache_size: int = 100
    schema: Literal["apply", "verify"] = "apply"
    host: str = "127.0.0.1"
    port: int = 7420
    access: Literal["auto", "open", "tokens"] = "auto"
    hosts: str | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    event_retention: timedelta = timedelta(days=7)
    directive_retention: timedelta = timedelta(days=30)
    project: str = "default"
    actor: str | None = None
    agent: str | None = None
    role: str | None = None
    listen: str = "127.0.0.1:7421"
    socket: Path | None = None
    pod_name: str | None = None
    pod_namespace: str | None = None
    pod_labels: Path = Path("/etc/podinfo/labels")
    output: Literal["auto", "text", "json"] = "auto"

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the daemon may be called by, beside localhost."""
        return tuple(name.strip() for name in (self.hosts or "").split(",") if name.strip())


_LIMITS: Mapping[str, tuple[float, float]] = {
    "min_connections": (1, 1000),
    "max_connections": (1, 1000),
    "connect_limit_s": (0, 86400),
    "call_timeout_s": (0.1, 3600),
    "statement_cache_size": (0, 10000),
    "port": (0, 65535),
    "event_retention": (1, 31622400),
    "directive_retention": (1, 31622400),
}


class _Given(msgspec.Struct, frozen=True):
    """A value as it was given: where, and how near to the caller (the smallest is nearest)."""

    value: object
    origin: str
    level: int


def debugging(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether COORDINATOR_DEBUG asks for stack traces."""
    return environment.get(f"{PREFIX}DEBUG", "") not in ("", "0")


def output_form(environment: Mapping[str, str] = os.environ) -> str:
    """Tell the form in which to report errors where the settings themselves may be wrong."""
    form = environment.get(f"{PREFIX}OUTPUT", "")
    return form if form in ("text", "json") else "auto"


def load(
    *,
    profile: str | None = None,
    file: str | None = None,
    flags: Mapping[str, tuple[str, str]] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """Put the settings together. ``flags`` has, by setting, the flag's spelling and its value.

    Raises: ``ConfigurationError``.
    """
    given = _from_profile(profile, file, environment)
    given |= _from_environment(environment)
    given |= {name: _Given(value, spelling, 0) for name, (spelling, value) in (flags or {}).items()}
    hints = get_type_hints(Config)
    values = {name: _convert(name, hints[name], one) for name, one in given.items()}
    if "token" in values and not SECRET.fullmatch(values["token"]):
        raise ConfigurationError(
            f"{given['token'].origin} is no token", hint='It is coo_…; see "coordinator token create".'
        )
    for name in ADDRESSES & values.keys():
        try:
            if name == "database_url" and address.is_gateway(values[name]):
                address.check_gateway(values[name])
            else:
                address.check(values[name], environment)
        except address.AddressError as error:
            raise ConfigurationError(f"{given[name].origin} {error}", hint=error.hint) from None
    # An address past the pooler of another database than the one that the caller named would be worse than none.
    if "direct_url" in given:
        if "database_url" not in given:
            raise ConfigurationError(
                f"{given['direct_url'].origin} is set, but no database_url",
                hint="Set COORDINATOR_DATABASE_URL, too.",
            )
        if given["direct_url"].level > given["database_url"].level:
            del values["direct_url"]
    _fit_pool(values, given)
    return Config(**values)


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    names = Config.__struct_fields__
    given = {name: _Given(environment[alias], alias, 1) for name, alias in ALIASES.items() if environment.get(alias)}
    known = {f"{PREFIX}{name.upper()}" for name in (*names, *_OTHER_VARIABLES)}
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS}
    for variable in environment:
        if variable.startswith(PREFIX) and variable not in known:
            close = get_close_matches(variable.removeprefix(PREFIX), [k.removeprefix(PREFIX) for k in known], 1, 0.9)
            if close:
                raise ConfigurationError(f"unknown setting {variable}", hint=f"Did you mean {PREFIX}{close[0]}?")
    for name in names:
        variable = f"{PREFIX}{name.upper()}"
        value = environment.get(variable)
        # Kubernetes sets COORDINATOR_PORT=tcp://… beside a Service of the name "coordinator".
        if value and not (name == "port" and value.startswith("tcp://")):
            given[name] = _Given(value, variable, 1)
        path = environment.get(f"{variable}_FILE") if name in SECRETS else None
        if path:
            if value:
                raise ConfigurationError(f"{variable} and {variable}_FILE are both set", hint="Unset one.")
            given[name] = _Given(_read(Path(path), f"{variable}_FILE").strip(), f"{variable}_FILE", 1)
    return given


def _from_profile(profile: str | None, file: str | None, environment: Mapping[str, str]) -> dict[str, _Given]:
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
            f'there is no profile "{name}": no {FILE} was found',
            hint=f"Make {' or '.join(str(place) for place in places)}, or give --config FILE.",
        )
    document = _parse(path, _read(path, origin))
    _known(document, ("profile", "profiles"), str(path))
    profiles = document.get("profiles") or {}
    name = name or document.get("profile")
    if not isinstance(profiles, dict) or not all(isinstance(key, str) for key in profiles):
        raise ConfigurationError(f"profiles in {path} is no mapping", hint="Write profiles: {dev: {port: 7420}}.")
    if name is None:
        return {}
    if not isinstance(name, str) or name not in profiles:
        close = get_close_matches(str(name), profiles, 1)
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigurationError(
            f'there is no profile "{name}" in {path}',
            hint=f"Did you mean {close[0]}?" if close else f"There are: {known}.",
        )
    settings = profiles[name] or {}
    if not isinstance(settings, dict):
        raise ConfigurationError(f'profile "{name}" in {path} is no mapping', hint="Write it as setting: value.")
    fields = Config.__struct_fields__
    _known(settings, (*fields, *(f"{secret}_file" for secret in SECRETS)), f'profile "{name}" in {path}')
    given = {}
    for key, value in settings.items():
        where = f'{key} of profile "{name}" in {path}'
        if value is None:
            continue
        if key in fields:
            given[key] = _Given(value, where, 2)
            continue
        setting = key.removesuffix("_file")
        if settings.get(setting) is not None:
            raise ConfigurationError(f"{where}: {setting} is there, too", hint="Keep one of the two.")
        if not isinstance(value, str):
            raise ConfigurationError(f"{where} is no path", hint="Give the path of a file as a text.")
        given[setting] = _Given(_read(path.parent / Path(value).expanduser(), where).strip(), where, 2)
    return given


def _known(settings: Mapping[Any, object], known: tuple[str, ...], where: str) -> None:
    for key in settings:
        if key not in known:
            close = get_close_matches(str(key), known, 1)
            raise ConfigurationError(
                f'unknown setting "{key}" in {where}',
                hint=f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known)}.",
            )


def _read(path: Path, origin: str) -> str:
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


def _parse(path: Path, text: str) -> dict[Any, Any]:
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - slow to import, and most calls have no file

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        # Not the parser's own message: it quotes the line, and the line may hold a password.
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{path} is no YAML{where}", hint="Check indentation and quotes.") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} is no mapping", hint="Begin it with profiles:")
    return document


def _convert(name: str, hint: object, given: _Given) -> Any:
    """Make a value of the setting's type; a YAML scalar or a text."""
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
    least, most = _LIMITS[name]
    if not least <= number <= most:
        unit = "" if hint is int else " seconds"
        raise ConfigurationError(
            f"{given.origin}{shown} is out of range", hint=f"It can be {least:.16g} to {most:.16g}{unit}."
        )
    return number if hint is float else value


def _fit_pool(values: dict[str, Any], given: Mapping[str, _Given]) -> None:
    defaults = Config()
    most = values.get("max_connections", defaults.max_connections)
    if "min_connections" not in values:
        values["min_connections"] = min(defaults.min_connections, most)
    elif values["min_connections"] > most:
        raise ConfigurationError(
            f"{given['min_connections'].origin} is {values['min_connections']}, more than max_connections, {most}",
            hint="Lower it, or raise max_connections.",
        )
