"""The README's block runs as it stands, against a real daemon."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.daemon import running

ROOT = Path(__file__).parents[2]


def block() -> str:
    found = re.search(r"<!-- executed by .*? -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


def test_the_readme_block_runs_and_shows_what_it_says(empty_url: str) -> None:
    environment = {
        **os.environ,
        "COORDINATOR_DATABASE_URL": empty_url,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with running(empty_url):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block()], env=environment, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert '"key":"task/7/REJECTED"' in done.stdout
    assert '"type":"signal.cleared"' in done.stdout
    assert '"body":"write tests first"' in done.stdout
