"""Settings from the environment, and from files that its variables name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coordinator.config.file import read
from coordinator.config.settings import PREFIX, SETTINGS
from coordinator.config.value import Given
from coordinator.errors import ConfigurationError

__all__ = ["from_environment"]

_OTHER_VARIABLES = (f"{PREFIX}CONFIG", f"{PREFIX}PROFILE", f"{PREFIX}DEBUG")


def from_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    """Read the settings in the environment; reject a variable whose name is almost that of a setting.

    Raises: ``ConfigurationError``.
    """
    settings = SETTINGS.values()
    known = {*_OTHER_VARIABLES, *(setting.variable for setting in settings)}
    known |= {f"{setting.variable}_FILE" for setting in settings if setting.secret}
    for variable in environment:
        if variable.startswith(PREFIX) and variable not in known:
            from difflib import get_close_matches  # noqa: PLC0415 - slow to import, and rarely needed

            close = get_close_matches(variable.removeprefix(PREFIX), [k.removeprefix(PREFIX) for k in known], 1, 0.9)
            if close:
                raise ConfigurationError(f"unknown setting {variable}", hint=f"Did you mean {PREFIX}{close[0]}?")
    given: dict[str, Given] = {}
    for setting in settings:
        if setting.alias and (value := environment.get(setting.alias)):
            given[setting.name] = Given(value, setting.alias, 1)
        value = environment.get(setting.variable)
        # Kubernetes sets COORDINATOR_PORT=tcp://… for a Service named "coordinator".
        if value and not (setting.name == "port" and value.startswith("tcp://")):
            given[setting.name] = Given(value, setting.variable, 1)
        path = environment.get(f"{setting.variable}_FILE") if setting.secret else None
        if path:
            if value:
                raise ConfigurationError(
                    f"{setting.variable} and {setting.variable}_FILE are both set", hint="Unset one."
                )
            origin = f"{setting.variable}_FILE"
            given[setting.name] = Given(read(Path(path), origin).strip(), origin, 1, Path(path).absolute())
    return given
