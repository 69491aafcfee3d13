"""The coordination service for fleets of AI agents, on nothing but PostgreSQL.

The public names in Python: ``connect``, the client, the types of its results, and the errors that it raises.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.client import (
        Client,
        EventStream,
        Handle,
        Held,
        LeaseState,
        Listing,
        LockLost,
        LogReset,
        Page,
        Presence,
        connect,
    )
    from coordinator.config import Config
    from coordinator.errors import (
        BackupFailed,
        ConfigurationError,
        Conflict,
        CoordinatorError,
        DatabaseBusy,
        DatabaseUnavailable,
        InvalidArgument,
        LogFull,
        NotFound,
        PermissionDenied,
        SchemaMismatch,
        ServerBehind,
        StoreUnavailable,
        Unauthenticated,
        WaitTimedOut,
    )
    from coordinator.model.agent import Agent, KnownAgent
    from coordinator.model.directive import Directive, Pending, Receipt, Sent
    from coordinator.model.doctor import Finding
    from coordinator.model.document import Document, DocumentHeader, DocumentVersion
    from coordinator.model.event import Event
    from coordinator.model.lock import Grant, Lock, LockBlocker, PathCheck, Renewal, Waiter
    from coordinator.model.log import Log, LogEntry, LogReceipt, NewEntry
    from coordinator.model.operation import JsonText
    from coordinator.model.project import Project, ProjectContents
    from coordinator.model.server import ServerCalls, ServerSize
    from coordinator.model.signal import Rule, Signal
    from coordinator.model.status import Status
    from coordinator.model.transfer import ExportLine, ImportProgress
    from coordinator.worker import FailJob, JobContext, RetryJob, SnoozeJob, Worker

    __version__: str

# Imported late, so that the command line and the embedded server do not need the imports of the client.
_PLACES = {
    "coordinator.client": "Client EventStream Handle Held LeaseState Listing LockLost LogReset Page Presence connect",
    "coordinator.config": "Config",
    "coordinator.errors": "BackupFailed ConfigurationError Conflict CoordinatorError DatabaseBusy DatabaseUnavailable InvalidArgument LogFull NotFound"
    " PermissionDenied SchemaMismatch ServerBehind StoreUnavailable Unauthenticated WaitTimedOut",
    "coordinator.model.agent": "Agent KnownAgent",
    "coordinator.model.directive": "Directive Pending Receipt Sent",
    "coordinator.model.doctor": "Finding",
    "coordinator.model.document": "Document DocumentHeader DocumentVersion",
    "coordinator.model.event": "Event",
    "coordinator.model.lock": "Grant Lock LockBlocker PathCheck Renewal Waiter",
    "coordinator.model.log": "Log LogEntry LogReceipt NewEntry",
    "coordinator.model.operation": "JsonText",
    "coordinator.model.project": "Project ProjectContents",
    "coordinator.model.server": "ServerCalls ServerSize",
    "coordinator.model.signal": "Rule Signal",
    "coordinator.model.status": "Status",
    "coordinator.model.transfer": "ExportLine ImportProgress",
    "coordinator.worker": "FailJob JobContext RetryJob SnoozeJob Worker",
}
_PLACE_OF = {name: module for module, names in _PLACES.items() for name in names.split()}

__all__ = [
    "Agent",
    "BackupFailed",
    "Client",
    "Config",
    "ConfigurationError",
    "Conflict",
    "CoordinatorError",
    "DatabaseBusy",
    "DatabaseUnavailable",
    "Directive",
    "Document",
    "DocumentHeader",
    "DocumentVersion",
    "Event",
    "EventStream",
    "ExportLine",
    "FailJob",
    "Finding",
    "Grant",
    "Handle",
    "Held",
    "ImportProgress",
    "InvalidArgument",
    "JobContext",
    "JsonText",
    "KnownAgent",
    "LeaseState",
    "Listing",
    "Lock",
    "LockBlocker",
    "LockLost",
    "Log",
    "LogEntry",
    "LogFull",
    "LogReceipt",
    "LogReset",
    "NewEntry",
    "NotFound",
    "Page",
    "PathCheck",
    "Pending",
    "PermissionDenied",
    "Presence",
    "Project",
    "ProjectContents",
    "Receipt",
    "Renewal",
    "RetryJob",
    "Rule",
    "SchemaMismatch",
    "Sent",
    "ServerBehind",
    "ServerCalls",
    "ServerSize",
    "Signal",
    "SnoozeJob",
    "Status",
    "StoreUnavailable",
    "Unauthenticated",
    "WaitTimedOut",
    "Waiter",
    "Worker",
    "__version__",
    "connect",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from coordinator.version import version  # noqa: PLC0415

        return version()
    if name in _PLACE_OF:
        return getattr(import_module(_PLACE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
