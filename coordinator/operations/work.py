"""The daemon's own work: to lead, to relay, to sample. Not on any face."""

from __future__ import annotations

from datetime import timedelta

from coordinator.model.operation import Operation
from coordinator.model.work import Gauge, Lead, Step

__all__ = [
    "LeaderRenew",
    "OutboxPrune",
    "ProcessRegister",
    "RelayArm",
    "RelayRecover",
    "RelayStep",
    "SampleGauges",
]


class ProcessRegister(Operation[int], frozen=True, kw_only=True):
    """Register the session's process and take its liveness lock; ``id``: come back after a lost connection."""

    function = "process_register"
    internal = True

    kind: str
    name: str
    id: int | None = None


class LeaderRenew(Operation[Lead], frozen=True, kw_only=True):
    """Take or keep the lead for ``ttl``, and learn which loops have work."""

    function = "leader_renew"
    internal = True

    process: int
    ttl: timedelta = timedelta(seconds=5)


class RelayRecover(Operation[bool], frozen=True, kw_only=True):
    """Begin a new epoch if the database was restored elsewhere."""

    function = "relay_recover"
    internal = True


class RelayStep(Operation[Step], frozen=True, kw_only=True):
    """Number one batch of the outbox and notify its readers."""

    function = "relay_step"
    internal = True

    limit: int = 1000
    notify: bool = True


class RelayArm(Operation[bool], frozen=True, kw_only=True):
    """Arm the doorbell; true: one more empty step makes it safe to sleep."""

    function = "relay_arm"
    internal = True

    duration: timedelta = timedelta(seconds=15)


class OutboxPrune(Operation[int], frozen=True, kw_only=True):
    """Delete from the outbox what is in the log, from transaction ``start`` on; answers with the one to go on from."""

    function = "outbox_prune"
    internal = True

    start: int = 0


class SampleGauges(Operation[list[Gauge]], frozen=True, kw_only=True):
    """Sample what the metrics endpoint shows of the database's contents."""

    function = "gauge_sample"
    reads = True
    internal = True
