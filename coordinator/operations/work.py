"""The daemon's own work: leading, relaying, sampling. Internal."""

from __future__ import annotations

from datetime import datetime, timedelta

from coordinator.model.metric import Sample
from coordinator.model.operation import Operation
from coordinator.model.work import Beat, Lead, Step

__all__ = [
    "LeaderBeat",
    "LeaderRenew",
    "ProcessRegister",
    "RelayArm",
    "RelayRecover",
    "RelayRun",
    "RelayStep",
    "SampleMetrics",
    "SizesMeasure",
    "TablesAnalyze",
]


class ProcessRegister(Operation[int], frozen=True, kw_only=True):
    """Register the session's process and take its liveness lock. ``id`` is the id of a process that reconnects."""

    function = "process_register"
    internal = True

    kind: str
    name: str
    id: int | None = None


class LeaderRenew(Operation[Lead], frozen=True, kw_only=True):
    """Take or keep the lead for ``ttl``; return which loops have work."""

    function = "leader_renew"
    internal = True

    process: int
    ttl: timedelta = timedelta(seconds=5)


class LeaderBeat(Operation[Beat], frozen=True, kw_only=True):
    """Return how far the leader's renewals have arrived at this server."""

    function = "leader_beat"
    reads = True
    internal = True


class RelayRecover(Operation[bool], frozen=True, kw_only=True):
    """Begin a new epoch if the server was started, or the database copied, since the last event was numbered."""

    function = "relay_recover"
    internal = True


class RelayRun(Operation[list[int]], frozen=True, kw_only=True):
    """Number events for about ``duration``; return the sizes of the chunks, ending with 0 if nothing is left."""

    function = "relay_run"
    procedure = True
    internal = True

    duration: timedelta = timedelta(milliseconds=100)


class RelayStep(Operation[Step], frozen=True, kw_only=True):
    """Number the next chunk of events and notify their readers: a single step of ``RelayRun``."""

    function = "relay_step"
    internal = True

    limit: int = 500
    notify: bool = True


class RelayArm(Operation[bool], frozen=True, kw_only=True):
    """Arm the doorbell; return whether the relay may sleep after one more empty step."""

    function = "relay_arm"
    internal = True

    duration: timedelta = timedelta(seconds=15)


class SampleMetrics(Operation[list[Sample]], frozen=True, kw_only=True):
    """Return the current values of samplers of the database's metrics. ``since`` is when the previous sample was taken."""

    function = "metric_sample"
    reads = True
    internal = True

    samplers: list[str]
    since: datetime | None = None


class SizesMeasure(Operation[int], frozen=True, kw_only=True):
    """Measure the database, its tables and its projects; return how many sizes were stored, 0 if another daemon measures now."""

    function = "server_measure"
    internal = True

    limit_bytes: int | None = None
    free_bytes: int | None = None


class TablesAnalyze(Operation[int], frozen=True, kw_only=True):
    """Analyze the table with the most changes since its last analyze; return how many tables were analyzed. Repeat until 0."""

    function = "upkeep_analyze"
    internal = True
