"""Metrics that the leader samples of the database."""

from __future__ import annotations

import msgspec

__all__ = ["Metric", "Sample"]


class Metric(msgspec.Struct, frozen=True):
    """What a sampler measures: a gauge, a counter, or a histogram, of which each sample is an observation."""

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
