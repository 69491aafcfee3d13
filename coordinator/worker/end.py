"""The ends of an attempt other than a result: the exceptions that a function raises, and the calls that they stand for."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from coordinator.client import Client
from coordinator.client.caller import Duration, as_duration
from coordinator.errors import CoordinatorError, InvalidArgument
from coordinator.model.catalogue import LIMITS
from coordinator.model.job import JobGrant, JobOutcome
from coordinator.model.json import encode

__all__ = ["End", "FailJob", "RetryJob", "SnoozeJob", "as_json", "end_of", "failure"]

SAID = 2000  # characters of an error's message, before its traceback
FRAMES = 50


class FailJob(Exception):
    """Raise it to fail a job permanently, however many attempts are left."""


class RetryJob(Exception):
    """Raise it to end an attempt with an error, and start the next one at an instant or after a delay instead of the back-off."""

    def __init__(
        self, message: str = "the job asked for a retry", *, at: datetime | None = None, delay: Duration | None = None
    ) -> None:
        super().__init__(message)
        self.at = datetime.now(UTC) + as_duration(delay) if at is None and delay is not None else at


class SnoozeJob(Exception):
    """Raise it to postpone a job for 1 second to 366 days. The job keeps its checkpoint, and no attempt is used up."""

    def __init__(self, delay: Duration) -> None:
        super().__init__(f"the job is put off for {delay}")
        self.delay = as_duration(delay)


def as_json(value: Any, what: str) -> bytes:
    """Encode what a function returned.

    Raises: ``FailJob`` if it is not JSON: another attempt would not change that.
    """
    try:
        return encode(value)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError, InvalidArgument) as error:
        raise FailJob(f"{what} cannot be encoded as JSON: {error}") from None


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
    """Return an error as text: first its message, then where it happened."""
    said = "".join(traceback.format_exception_only(error)).strip()
    trace = error.__traceback__ and error.__traceback__.tb_next  # without the line that called the function
    if trace is None:
        return _storable(said)
    chain = not isinstance(error, CoordinatorError)  # its cause is an error of the driver, which says the same
    frames = traceback.format_exception(error.with_traceback(trace), limit=-FRAMES, chain=chain)
    return _storable(f"{said[:SAID]}\n\n{''.join(frames)}")


def _storable(text: str) -> str:
    """Return the part of a text that PostgreSQL can store: of a long text, its beginning and end."""
    text = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode() or "no message"
    most = LIMITS["job_error"]
    return text if len(text) <= most else f"{text[:SAID]}\n…\n{text[SAID + 3 - most :]}"
