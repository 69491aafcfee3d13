"""Metrics of the database that the leader samples."""

from __future__ import annotations

import msgspec

__all__ = ["Metric", "Sample"]


class Metric(msgspec.Struct, frozen=True):
    """A metric of a sampler: a gauge, a counter, or a histogram. Each sample of a histogram is an observation."""

    sampler: str
    kind: str
    labels: tuple[str, ...]
    unit: str
    meaning: str


class Sample(msgspec.Struct, frozen=True):
    """One value of a metric, for one set of labels."""

    name: str
    labels: list[str]
    value: float
