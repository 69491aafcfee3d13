"""QA: counts each share again. It passes equal results, and sends back the others, with the reason.

usage: python -m examples.fleet.qa URL PROJECT ROOT NAME
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

from coordinator import JobContext, Worker
from examples.fleet import work
from examples.fleet.work import PASSED, PLAN, Share

url, project, root, name = sys.argv[1:]
worker = Worker(concurrency=1, name=name)


@worker.job("review")
async def review(context: JobContext, share: Share) -> str | None:
    """Return why the share was rejected, or nothing."""
    client, number = context.client, share.number
    result = json.loads(await client.artifacts.get(work.result_of(number), session=PLAN))
    expected = work.count(Path(root), share.files)
    if result == expected:
        await client.messages.append(PLAN, "qa", f"Share {number} passed.", uid=f"review/{context.id}")
        await client.signals.set(f"share/{number}{PASSED}", True, critical=True)
        return None
    reason = f"{', '.join(sorted(expected.keys() - result.keys()))} missing"
    await client.messages.append(PLAN, "qa", f"Share {number} is rejected: {reason}.", uid=f"review/{context.id}")
    await client.jobs.enqueue(
        "code",
        {"share": number, "files": share.files, "feedback": reason},
        priority=10,
        after=[context.id],  # so that nobody replaces the result while this job may still read it
        locks=[work.result_of(number)],
        dedupe_key=f"again/{context.id}",
        dedupe_for=3600,
        on_duplicate="skip",
        **work.RETRIES,
    )
    return reason


if __name__ == "__main__":
    anyio.run(lambda: worker.run(url, project=project))
