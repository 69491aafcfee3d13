"""The metrics that the leader samples of the database: declared in SQL, next to what they measure; kept here, in memory.

A sample replaces the values of its samplers, so a series that no longer exists ends. While samples fail, the last
values stay, and ``coordinator_sample_timestamp_seconds`` shows their age. A process that loses the lead clears all
values: the next leader has them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from coordinator.model.metric import Metric, Sample

__all__ = ["Samples"]

_TAKEN = "coordinator_sample_timestamp_seconds"
_OF_SAMPLES = {
    "coordinator_sample_seconds": Metric("", "gauge", ("sampler",), "seconds", "Duration of the last sample."),
    _TAKEN: Metric(
        "", "gauge", ("sampler",), "seconds", "When the last sample was taken: the database's clock, as Unix time."
    ),
}


class Samples(Collector):
    """Collects the newest values of ``declared``."""

    def __init__(self, declared: Mapping[str, Metric], registry: CollectorRegistry, buckets: Iterable[float]) -> None:
        self.samplers = list(dict.fromkeys(metric.sampler for metric in declared.values()))
        self.declared = {**declared, **_OF_SAMPLES}
        self._values: dict[str, list[Sample]] = {}  # by sampler
        buckets = tuple(buckets)
        self._histograms = {
            name: Histogram(name, metric.meaning, metric.labels, registry=registry, buckets=buckets)
            for name, metric in declared.items()
            if metric.kind == "histogram"
        }
        registry.register(self)

    def keep(self, samples: Iterable[Sample]) -> None:
        """Replace the values of the samplers that were run. A newer schema may return samples that are unknown here."""
        taken: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            if histogram := self._histograms.get(sample.name):
                (histogram.labels(*sample.labels) if sample.labels else histogram).observe(sample.value)
            elif metric := self.declared.get(sample.name):
                taken[metric.sampler or sample.labels[0]].append(sample)
        self._values.update(taken)

    def clear(self) -> None:
        """Clear all values."""
        self._values.clear()

    @property
    def taken_at(self) -> datetime | None:
        """When the last sample was taken, by the database's clock."""
        instants = [one.value for values in self._values.values() for one in values if one.name == _TAKEN]
        return datetime.fromtimestamp(max(instants), UTC) if instants else None

    def describe(self) -> Iterator[Family]:
        """Yield the metrics without their values."""
        for name, metric in self.declared.items():
            if metric.kind == "gauge":
                yield GaugeMetricFamily(name, metric.meaning, labels=metric.labels)
            elif metric.kind == "counter":
                yield CounterMetricFamily(name, metric.meaning, labels=metric.labels)

    def collect(self) -> Iterator[Family]:
        """Yield the metrics with their newest values."""
        found: defaultdict[str, list[Sample]] = defaultdict(list)
        for values in self._values.values():
            for sample in values:
                found[sample.name].append(sample)
        for family in self.describe():
            for sample in found[family.name if family.type == "gauge" else f"{family.name}_total"]:
                family.add_metric(sample.labels, sample.value)  # type: ignore[attr-defined]
            yield family
