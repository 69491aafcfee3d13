"""The settings of ``agent-bridge``: recac's variables and the coordinator's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from coordinator.config import Config, load
from coordinator.config.store import store_url

__all__ = ["BridgeSettings", "bridge_settings"]


class BridgeSettings(NamedTuple):
    """Settings from the environment. ``project_id`` is as given, ``named``: whether it was given; ``address`` is the one in RECAC_DB_URL."""

    config: Config
    project_id: str
    named: bool
    agent: str | None
    address: str | None = None


def bridge_settings(note: Callable[[str], None], environment: Mapping[str, str] = os.environ) -> BridgeSettings:
    """Read the settings; recac's variables take precedence. ``note`` receives notices for the user.

    Raises: ``ConfigurationError``.
    """
    kind = environment.get("RECAC_DB_TYPE")
    origin = "RECAC_DB_TYPE" if kind else "RECAC_DB_URL"
    url, told = store_url(kind, environment.get("RECAC_DB_URL"), origin)
    if told:
        note(told)
    config = load(flags={"database_url": ("RECAC_DB_URL", url)} if url else {}, environment=environment, note=note)
    given = environment.get("RECAC_PROJECT_ID")
    agent = environment.get("RECAC_AGENT_ID") or config.agent_id
    return BridgeSettings(config, given or config.project, bool(given), agent, url)
