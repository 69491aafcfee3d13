"""Retention: how long logs, documents, sessions and artifacts are kept."""

from __future__ import annotations

from datetime import timedelta

from coordinator.model.operation import Batch, InProject, Operation
from coordinator.model.retention import RetentionForecast, RetentionPolicy, RetentionResult

__all__ = [
    "Configure",
    "ExpireArtifacts",
    "ExpireDocuments",
    "ExpireSessions",
    "Preview",
    "Reset",
    "Run",
    "Set",
    "Show",
    "Sweep",
    "Trim",
]


class Set(InProject[RetentionPolicy], frozen=True, kw_only=True):
    """Set how long entries, versions, sessions or artifacts of a kind are kept. An omitted bound does not apply: without both, everything is kept.

    ``subject`` is log, document, session or artifact. ``kind`` * stands for all kinds without their own policy.
    ``max_age`` is the maximum age of a log entry, the time that a deleted document is kept, the time without activity
    that a session is kept, or the time that an artifact without a session is kept after its content was stored.
    ``max_count`` is how many of its newest entries a log keeps, or of its versions a document. ``everywhere``: in all
    projects without their own policy.

    Raises: ``InvalidArgument`` if a bound is out of range.
    """

    function = "retention_set"
    speakers = ("actor",)
    examples = {"kind": "observation"}

    subject: str
    kind: str = "*"
    max_age: timedelta | None = None
    max_count: int | None = None
    everywhere: bool = False
    actor: str | None = None

    def about(self) -> str | None:
        """Return the project; None for a policy of all projects."""
        return None if self.everywhere else self.project


class Reset(InProject[RetentionPolicy], frozen=True, kw_only=True):
    """Remove the policy of a project, so that the policy of all projects applies; return the policy that now applies.

    ``everywhere`` resets the policy of all projects to its default.
    """

    function = "retention_reset"
    speakers = ("actor",)
    examples = {"kind": "observation"}

    subject: str
    kind: str = "*"
    everywhere: bool = False
    actor: str | None = None

    def about(self) -> str | None:
        """Return the project; None for a policy of all projects."""
        return None if self.everywhere else self.project


class Show(InProject[list[RetentionPolicy]], frozen=True, kw_only=True):
    """List the policies that apply in a project, by subject and kind."""

    function = "retention_show"
    reads = True
    page_by = ("subject", "kind")

    after: list[str] | None = None
    limit: int = 1000


class Preview(InProject[list[RetentionForecast]], frozen=True, kw_only=True):
    """List what retention would remove now, by subject, kind and reason. It reads every log, document, session and artifact of the project."""

    function = "retention_plan"
    reads = True
    page_by = ("subject", "kind", "reason")

    after: list[str] | None = None
    limit: int = 1000


class Run(InProject[bool], frozen=True, kw_only=True):
    """Let the leading daemon examine every log, document, session and artifact of a project now.

    It removes what ``Preview`` lists, in paced batches.
    """

    function = "retention_run"
    speakers = ("actor",)
    examples = {"project": "shop"}

    actor: str | None = None


class Configure(Operation[int], frozen=True, kw_only=True):
    """Set the limits of observations in all projects, from the daemon's settings; returns 1 if that changed anything."""

    function = "retention_configure"
    internal = True

    max_age: timedelta | None = None
    max_count: int | None = None


class Sweep(Batch, frozen=True, kw_only=True):
    """Apply a change of retention to the logs, documents, sessions and artifacts that it affects. Repeat until 0."""

    function = "retention_sweep"


class Trim(Operation[list[RetentionResult]], frozen=True, kw_only=True):
    """Delete entries of logs that are due; returns a row for each log that it has examined. Repeat until there is none."""

    function = "log_trim"
    internal = True

    limit: int = 1000


class ExpireDocuments(Operation[list[RetentionResult]], frozen=True, kw_only=True):
    """Delete documents whose TTL has passed, and remove those that were deleted long enough ago. Repeat until there is no row."""

    function = "document_expire"
    internal = True

    limit: int = 1000


class ExpireSessions(Operation[list[RetentionResult]], frozen=True, kw_only=True):
    """Delete a session that has been idle for too long, with its contents. Repeat until there is no row."""

    function = "session_expire"
    internal = True

    limit: int = 100


class ExpireArtifacts(Operation[list[RetentionResult]], frozen=True, kw_only=True):
    """Delete artifacts without a session that are older than their retention. Repeat until there is no row."""

    function = "artifact_expire"
    internal = True

    limit: int = 100
