"""The coordination plane for fleets of AI agents, on nothing but PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.client import Client, connect

    __version__: str

__all__ = ["Client", "__version__", "connect"]


def __getattr__(name: str) -> Any:
    # Late, so that the command line and the embedded server do not pay for these imports.
    if name == "__version__":
        from coordinator.version import version  # noqa: PLC0415

        return version()
    if name in ("Client", "connect"):
        from coordinator import client  # noqa: PLC0415

        return getattr(client, name)
    raise AttributeError(name)
