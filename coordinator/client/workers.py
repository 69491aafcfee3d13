"""Workers: agents that have job types."""

from __future__ import annotations

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.model.job_history import WorkerStatus
from coordinator.operations import job_history

__all__ = ["Workers"]


class Workers(Verbs):
    """The workers of the client's project."""

    def list(self, *, type: str | None = None, after: str | None = None, limit: int = PAGE) -> Listing[WorkerStatus]:
        """List workers by name, those of one job type if ``type`` is given."""
        operation = job_history.ListWorkers(project=self._caller.project, type=type, limit=limit)
        return Listing(self._caller, operation, after)
