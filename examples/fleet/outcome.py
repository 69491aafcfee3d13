"""Who did what, read from the stored state alone: jobs, conversation, results. No process keeps any of it in memory."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec

import coordinator
from coordinator.errors import NotFound
from examples.fleet import work
from examples.fleet.work import DONE, PASSED, PLAN, REPORT, SHARES

__all__ = ["Message", "Outcome", "conversation", "lines", "read"]


class Message(msgspec.Struct, frozen=True):
    """A message of the conversation."""

    seq: int
    role: str | None
    actor: str
    text: str


@dataclass
class Outcome:
    """The state at the end."""

    jobs: list[dict[str, Any]]
    messages: list[Message]
    results: dict[int, dict[str, int]]
    passed: set[int]
    report: dict[str, int] | None
    signed_off: bool

    @property
    def rejected(self) -> list[Message]:
        """The rejections by QA."""
        return [message for message in self.messages if message.role == "qa" and "rejected" in message.text]

    @property
    def complete(self) -> bool:
        """Whether every share is counted and passed, QA rejected one, and the manager signed off the sum of the results."""
        total: Counter[str] = Counter()
        for result in self.results.values():
            total.update(result)
        done = all(job["status"] == "completed" for job in self.jobs)
        return bool(
            done and len(self.passed) == SHARES and len(self.rejected) == 1 and self.signed_off and self.report == total
        )


async def conversation(client: coordinator.Client) -> list[Message]:
    """Read the conversation so far."""
    try:
        return [
            Message(entry.seq, entry.role, entry.actor, str(entry.data["content"]))
            async for entry in client.messages.list(PLAN)
        ]
    except NotFound:  # there are no messages yet
        return []


async def read(client: coordinator.Client) -> Outcome:
    """Read the state."""
    signals = {signal.key async for signal in client.signals.list()}
    names = {artifact.artifact async for artifact in client.artifacts.list() if artifact.session == PLAN}

    async def value(name: str) -> Any:
        return json.loads(await client.artifacts.get(name, session=PLAN))

    return Outcome(
        jobs=[msgspec.to_builtins(job) async for job in client.jobs.list()],
        messages=await conversation(client),
        results={n: await value(work.result_of(n)) for n in range(1, SHARES + 1) if work.result_of(n) in names},
        passed={n for n in range(1, SHARES + 1) if f"share/{n}{PASSED}" in signals},
        report=await value(REPORT) if REPORT in names else None,
        signed_off=DONE in signals,
    )


def lines(outcome: Outcome) -> list[str]:
    """Format the outcome for people."""
    done: dict[str, Counter[str]] = {}
    for job in outcome.jobs:
        worker = done.setdefault(job["ended_by"] or job["worker"] or "nobody", Counter())
        worker.update({job["type"]: 1, "attempts": job["attempts"]})
    text = [f"{'':10}{'counted':>9}{'reviewed':>10}"]
    text += [f"{name:10}{counts['code']:9}{counts['review']:10}" for name, counts in sorted(done.items())]
    counted = ", ".join(f"{number:,} {what}" for what, number in (outcome.report or {}).items())
    text += ["", f"Counted   {counted or 'nothing'} in {len(outcome.results)} of {SHARES} shares"]
    text += [f"Rejected  {message.text}" for message in outcome.rejected]
    again = [job for job in outcome.jobs if job["attempts"] > 1]
    text.append(f"Again     {len(again)} {'job was' if len(again) == 1 else 'jobs were'} started more than once")
    text.append(
        f"Said      {len(outcome.messages)} messages; the last: {outcome.messages[-1].text if outcome.messages else ''}"
    )
    return text
