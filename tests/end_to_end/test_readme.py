"""The README's block runs as it stands, against a real daemon."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import anyio

from tests.daemon import Daemon
from tests.waiting import DEADLINE_S

ROOT = Path(__file__).parents[2]


def block() -> str:
    found = re.search(r"<!-- executed by .*? -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


async def test_the_readme_block_runs_and_shows_what_it_says(empty_url: str) -> None:
    environment = {
        **os.environ,
        "COORDINATOR_DATABASE_URL": empty_url,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with Daemon(empty_url) as daemon:
        await daemon.ready()
        command = ["bash", "-euo", "pipefail", "-c", block()]
        with anyio.fail_after(DEADLINE_S):
            done = await anyio.run_process(command, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    shown = done.stdout.decode()
    assert '"key":"task/7/REJECTED"' in shown
    assert '"type":"signal.cleared"' in shown
    assert '"body":"write tests first"' in shown
