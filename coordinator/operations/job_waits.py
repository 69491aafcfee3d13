"""Steps of jobs, durable waits, and questions that managers answer."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from coordinator.model.attempt import OfAttempt
from coordinator.model.job_history import JobStep
from coordinator.model.job_wait import JobQuestion, JobSuspension
from coordinator.model.operation import Batch, InProject, Json

__all__ = ["Answer", "Ask", "FinishStep", "ListQuestions", "Match", "Suspend"]


class FinishStep(OfAttempt[JobStep], frozen=True, kw_only=True):
    """Store the result of a step of a job, for this attempt and the next ones. A repetition with the same result changes nothing.

    ``ordinal`` distinguishes steps with one name, from 1. The call counts as progress.

    Raises: ``Conflict`` if the fence is stale, or the step has finished with another result.
    """

    function = "job_step"

    step: str
    result: Json = None
    ordinal: int = 1


class Suspend(OfAttempt[JobSuspension], frozen=True, kw_only=True):
    """Suspend a job until the first of several conditions is met. Meanwhile, it holds no worker, slots or locks. No attempt is used up.

    A condition is ``{"at": instant}``, ``{"delay": duration}``, ``{"signal": key, "value": json}`` (without a value:
    any), ``{"event": topic, "key": key}`` (without a key: any), ``{"jobs": [ids], "mode": "all" or "any"}``, or
    ``{"directive": id}``.

    The outcome is stored as a step: ``met`` is the index of the condition, from 0, or null if ``ttl`` has passed. If a
    condition is already met, the status is running, and ``result`` is the outcome. Events after the cursor ``after``
    count; by default, events since the previous wait with this name ended, or since the job first started.

    Raises: ``Conflict`` if the fence is stale.
    """

    function = "job_suspend"
    examples = {"step": "reply", "conditions": [{"event": "custom.reply", "key": "7"}], "ttl": "1h"}

    step: str
    conditions: list[dict[str, Json]]
    ttl: timedelta | None = None
    ordinal: int = 1
    after: str | None = None


class Ask(OfAttempt[JobSuspension], frozen=True, kw_only=True):
    """Ask managers a question, and let the job wait for the answer, without its worker. No attempt is used up.

    After ``ttl``, the answer is ``fallback``. The outcome is stored as a step: ``answer``, and ``by``, who gave it, or
    null. If the question is already answered, the status is running, and ``result`` is the outcome.

    Raises: ``Conflict`` if the fence is stale.
    """

    function = "job_ask"
    examples = {"step": "approval", "question": "Deploy 1.2?", "options": ["yes", "no"], "ttl": "1h", "fallback": "no"}

    step: str
    question: str
    options: list[str] | None = None
    ttl: timedelta | None = None
    fallback: Json = None
    ordinal: int = 1


class Answer(InProject[JobStep], frozen=True, kw_only=True):
    """Answer the question of a job; with ``step`` and ``ordinal``, only if this is its question. The agent that asked cannot answer.

    Raises: ``NotFound`` if it asks nothing; ``Conflict`` if the question is closed; ``PermissionDenied``;
    ``InvalidArgument``.
    """

    function = "job_answer"
    speakers = ("actor",)
    examples = {"value": "yes"}

    job: UUID
    value: Json
    reason: str | None = None
    step: str | None = None
    ordinal: int | None = None
    actor: str | None = None


class ListQuestions(InProject[list[JobQuestion]], frozen=True, kw_only=True):
    """List the questions of jobs that wait for an answer, in the order of the jobs."""

    function = "job_questions"
    reads = True
    page_by = ("job",)

    after: list[str] | None = None
    limit: int = 1000


class Match(Batch, frozen=True, kw_only=True):
    """Match events with the waits of jobs, and end waits that have timed out; return how many. Repeat until 0."""

    function = "job_wait_match"
