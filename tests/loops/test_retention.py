from __future__ import annotations

from datetime import timedelta

from coordinator.config import Config
from coordinator.loops.table import PAUSE_S, table
from coordinator.model.retention import RetentionResult
from coordinator.operations import retentions
from coordinator.telemetry import metrics


def removed(kind: str) -> float:
    return (
        metrics.REGISTRY.get_sample_value("coordinator_retention_removed_total", {"subject": "log", "kind": kind}) or 0
    )


def test_batches_pause_until_nothing_is_due_and_metrics_count_what_went() -> None:
    (trim,) = [loop for loop in table(Config()) if isinstance(loop.operation, retentions.Trim)]
    before = removed("step"), removed("*")
    run = trim.judge(
        [RetentionResult("log", "step", 900), RetentionResult("log", "*", 7), RetentionResult("log", "step", 0)]
    )
    assert (run.handled, run.again_s) == (907, PAUSE_S)
    assert (removed("step"), removed("*")) == (before[0] + 900, before[1] + 7)
    assert trim.judge([]).again_s is None


def test_the_daemon_bounds_observations_only_if_its_settings_do() -> None:
    def configured(config: Config) -> list[object]:
        return [loop.operation for loop in table(config) if isinstance(loop.operation, retentions.Configure)]

    assert configured(Config()) == []
    assert configured(Config(history_retention_days=3)) == [retentions.Configure(max_age=timedelta(days=3))]
    assert configured(Config(history_max_entries=5)) == [retentions.Configure(max_count=5)]
