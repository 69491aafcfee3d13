"""A coder: claims one share after another, counts its files, and passes the result to QA.

While it runs, a job holds the lock on its result, as the manager has requested. An attempt may end at any point, and
another coder starts again: the artifact is replaced, and the message and the job for QA are stored only once, even if
they are sent twice.

usage: python -m examples.fleet.coder URL PROJECT ROOT NAME
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio
import msgspec

from coordinator import JobContext, Worker
from examples.fleet import work
from examples.fleet.work import HALF_DONE, PACE_S, PLAN, Share

CARELESS = 1  # the share whose first result is wrong, so that QA rejects something

url, project, root, name = sys.argv[1:]
worker = Worker(concurrency=1, name=name)


@worker.job("code")
async def code(context: JobContext, share: Share) -> dict[str, int]:
    client = context.client
    await anyio.sleep(PACE_S / 2)
    await client.events.emit(HALF_DONE, key=f"share/{share.number}")
    await anyio.sleep(PACE_S / 2)
    result = work.count(Path(root), share.files)
    if share.number == CARELESS and share.feedback is None:
        del result["todos"]
    await client.artifacts.put(work.result_of(share.number), json.dumps(result).encode(), session=PLAN)
    await client.messages.append(PLAN, "coder", f"Share {share.number} is counted.", uid=f"code/{context.id}")
    # QA waits for this job, so that it starts when the job has ended, and not while another attempt may replace the result.
    await client.jobs.enqueue(
        "review",
        msgspec.to_builtins(share),
        after=[context.id],
        dedupe_key=f"review/{context.id}",
        dedupe_for=3600,
        on_duplicate="skip",
        **work.RETRIES,
    )
    return result


if __name__ == "__main__":
    anyio.run(lambda: worker.run(url, project=project))
