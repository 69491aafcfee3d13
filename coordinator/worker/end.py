"""How an attempt ends other than by a result: what a function raises, and the call that this stands for."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

from coordinator.client import Client
from coordinator.client.caller import Duration, as_duration
from coordinator.model.catalogue import LIMITS
from coordinator.model.job import JobGrant, JobOutcome

__all__ = ["End", "FailJob", "RetryJob", "SnoozeJob", "end_of", "failure"]

SAID = 2000  # characters of what an error says, before its traceback
FRAMES = 50


class FailJob(Exception):
    """Raise it to fail a job for good, however many attempts are left."""


class RetryJob(Exception):
    """Raise it to end an attempt with an error, and have the next one begin at an instant or after a delay instead of the back-off."""

    def __init__(
        self, message: str = "the job asked for a retry", *, at: datetime | None = None, delay: Duration | None = None
    ) -> None:
        super().__init__(message)
        self.at = datetime.now(UTC) + as_duration(delay) if at is None and delay is not None else at


class SnoozeJob(Exception):
    """Raise it to put a job off for 1 second to 366 days, with its checkpoint. This spends no attempt."""

    def __init__(self, delay: Duration) -> None:
        super().__init__(f"the job is put off for {delay}")
        self.delay = as_duration(delay)


End = Callable[[], Awaitable[JobOutcome]]


def end_of(error: BaseException, client: Client, grant: JobGrant) -> End:
    """Return the call that ends an attempt whose function raised an error."""
    match error:
        case SnoozeJob():
            return partial(client.jobs.snooze, grant, error.delay)
        case RetryJob():
            return partial(client.jobs.fail, grant, _storable(str(error)), retry_at=error.at)
        case FailJob():
            return partial(client.jobs.fail, grant, _storable(str(error)), final=True)
    return partial(client.jobs.fail, grant, failure(error))


def failure(error: BaseException) -> str:
    """Return an error as text: first what it says, then where it happened."""
    said = "".join(traceback.format_exception_only(error)).strip()
    trace = error.__traceback__ and error.__traceback__.tb_next  # without the line that called the function
    if trace is None:
        return _storable(said)
    return _storable(
        f"{said[:SAID]}\n\n{''.join(traceback.format_exception(error.with_traceback(trace), limit=-FRAMES))}"
    )


def _storable(text: str) -> str:
    """Return what PostgreSQL can store of a text: of one that is too long, its beginning and its end."""
    text = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode() or "no message"
    most = LIMITS["job_error"]
    return text if len(text) <= most else f"{text[:SAID]}\n…\n{text[SAID + 3 - most :]}"
