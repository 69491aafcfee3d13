"""Settings from the environment, and from files that it names."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from coordinator.config.file import read
from coordinator.config.settings import ALIASES, PREFIX, SECRETS, Config
from coordinator.config.value import Given
from coordinator.errors import ConfigurationError

__all__ = ["from_environment"]

_OTHER_VARIABLES = ("config", "profile", "debug")


def from_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    """Find the settings in the environment; what is nearly the name of one is refused.

    Raises: ``ConfigurationError``.
    """
    names = Config.__struct_fields__
    given = {name: Given(environment[alias], alias, 1) for name, alias in ALIASES.items() if environment.get(alias)}
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
            given[name] = Given(value, variable, 1)
        path = environment.get(f"{variable}_FILE") if name in SECRETS else None
        if path:
            if value:
                raise ConfigurationError(f"{variable} and {variable}_FILE are both set", hint="Unset one.")
            given[name] = Given(read(Path(path), f"{variable}_FILE").strip(), f"{variable}_FILE", 1)
    return given
