"""The identity of the sidecar's agent: its name, and the pod's metadata from the downward API of Kubernetes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from coordinator.config import Config
from coordinator.errors import ConfigurationError
from coordinator.model.operation import Json

__all__ = ["agent_name", "metadata"]

LABELS = 100
LABELS_BYTES = 100_000


def agent_name(config: Config) -> str:
    """Return the agent's name: the configured one, or that of the pod.

    Raises: ``ConfigurationError``.
    """
    name = config.agent or config.pod_name
    if name is None:
        raise ConfigurationError(
            "the agent has no name", hint="Pass --agent NAME, or set POD_NAME as the manifest does."
        )
    return name


def metadata(config: Config) -> dict[str, Json]:
    """Return what is known about the pod: its name, namespace and labels."""
    found: dict[str, Json] = {}
    if config.pod_name is not None:
        found["pod"] = config.pod_name
    if config.pod_namespace is not None:
        found["namespace"] = config.pod_namespace
    labels = _labels(config.pod_labels)
    if labels:
        found["labels"] = labels
    return found


def _labels(path: Path) -> dict[str, Json]:
    """Parse lines like ``key="value"``, with values quoted as in Go; a missing file has no labels."""
    try:
        text = path.read_bytes()[:LABELS_BYTES].decode()
    except (OSError, UnicodeDecodeError):
        return {}
    labels: dict[str, Json] = {}
    for line in text.splitlines()[:LABELS]:
        key, _, value = line.partition("=")
        try:
            labels[key] = msgspec.json.decode(value, type=str)
        except msgspec.DecodeError:
            continue
    return labels
