"""Many jobs from a file with a JSON object on each line."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import msgspec

from coordinator.cli.invocation import Invocation
from coordinator.cli.values import read_json
from coordinator.errors import CoordinatorError, InvalidArgument
from coordinator.model.catalogue import LIMITS
from coordinator.model.job import JobReceipt
from coordinator.operations import jobs

__all__ = ["enqueue_lines"]

MAX_BYTES = LIMITS["job_batch_bytes"] // 2  # the server counts spaces as well


def enqueue_lines(call: Invocation, path: str, defaults: Mapping[str, Any]) -> list[JobReceipt]:
    """Enqueue a job for each line, in calls of the maximum size; ``defaults`` are the fields that a line omits.

    Raises: ``InvalidArgument`` for a malformed line, and what the operation raises. The message names the line, and
    says how many jobs of earlier lines were enqueued.
    """
    usual = msgspec.to_builtins(dict(defaults))
    numbers: list[int] = []
    enqueued = 0

    def operations(file: IO[bytes]) -> Iterator[jobs.EnqueueMany]:
        nonlocal enqueued
        for batch in _batches(file):
            numbers[:] = [number for number, _ in batch]
            yield call.operation(jobs.EnqueueMany, jobs=[{**usual, **_object(*line)} for line in batch])
            enqueued += len(batch)

    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
            answers = call.run_all(operations(file))
    except OSError as error:
        raise InvalidArgument(
            f"cannot read {path}: {error.strerror}", hint="Give a file of JSON lines, or - for standard input."
        ) from error
    except CoordinatorError as error:
        message = error.message
        if (place := _place(error)) is not None:
            message = f"line {numbers[place]}: {message.removeprefix(f'job {place}: ')}"
        if enqueued:
            message += f" ({enqueued} jobs of earlier lines were enqueued)"
        raise type(error)(message, hint=error.hint, detail=error.detail, code=error.code) from error
    return [receipt for answer in answers for receipt in answer]


def _batches(file: IO[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """Yield lines with their numbers, in batches that fit into one call."""
    batch: list[tuple[int, bytes]] = []
    size = 0
    for number, line in enumerate(iter(lambda: file.readline(MAX_BYTES + 1), b""), 1):
        if batch and (size + len(line) > MAX_BYTES or len(batch) == LIMITS["job_batch"]):
            yield batch
            batch, size = [], 0
        if line.strip():
            batch.append((number, line))
            size += len(line)
    if batch:
        yield batch


def _object(number: int, line: bytes) -> dict[str, Any]:
    """Parse a line into a job."""
    try:
        job = read_json(line.decode(), f"line {number}")
    except UnicodeDecodeError:
        raise InvalidArgument(f"line {number} is not UTF-8", hint="Write JSON lines in UTF-8.") from None
    if not isinstance(job, dict):
        raise InvalidArgument(
            f"line {number}: not a JSON object", hint='Write {"type": "summarize", "payload": {"page": 7}}.'
        )
    return job


def _place(error: CoordinatorError) -> int | None:
    """Return the position, in its call, of the job that an error is about."""
    try:
        facts = msgspec.json.decode(error.detail or "null")
    except msgspec.DecodeError:
        return None
    return facts.get("job") if isinstance(facts, dict) and isinstance(facts.get("job"), int) else None
