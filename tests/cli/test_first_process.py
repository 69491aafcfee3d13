"""The program as the first process of a container, to which the kernel gives no default actions."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.forked import ROOT
from tests.waiting import DEADLINE_S

ALONE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


def test_as_the_first_process_of_a_container_sigterm_ends_a_command_that_does_not_handle_it() -> None:
    try:
        subprocess.run([*ALONE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no process namespaces here")
    command = [*ALONE, sys.executable, "-m", "coordinator", "signal", "set", "k", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as outside:
        try:
            first = wait_for_handler(outside.pid)
            Path(f"/proc/{first}").stat()  # still there
            subprocess.run(["kill", "-TERM", str(first)], check=True)
            assert outside.wait(DEADLINE_S) == 128 + signal.SIGTERM
        finally:
            outside.kill()


def wait_for_handler(unshare: int) -> int:
    """Wait until the child handles SIGTERM, and return its id."""
    ends_at = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends_at:
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text("ascii").split()
        for child in children:
            status = Path(f"/proc/{child}/status").read_text("ascii")
            caught = int(status.partition("SigCgt:")[2].split()[0], 16)
            if caught >> (signal.SIGTERM - 1) & 1 and "python" in Path(f"/proc/{child}/cmdline").read_text("utf-8"):
                return int(child)
        time.sleep(0.01)
    raise AssertionError("nothing handles SIGTERM")
