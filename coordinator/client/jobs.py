"""Jobs: work that is handed over, claimed under a fence, and ended once."""

from __future__ import annotations

from coordinator.client.job_history import JobHistory

__all__ = ["Jobs"]


class Jobs(JobHistory):
    """The jobs of the client's project."""
