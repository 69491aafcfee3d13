"""The daemon as the command line starts it, and the database of it that the command line finds."""

from __future__ import annotations

import json
import signal
import subprocess

from tests.cli.conftest import Program
from tests.waiting import DEADLINE_S


def test_the_command_line_finds_the_database_of_a_running_daemon(lone: Program) -> None:
    process = lone.start("serve", "--port", "0", stdin=subprocess.DEVNULL)
    try:
        assert process.stderr
        events = []
        while "daemon.started" not in events:
            line = process.stderr.readline()
            assert line, events
            events.append(json.loads(line)["event"])
        assert lone.json("signal", "set", "k", "1")["version"] == 1
        tail = lone.run(
            "event", "tail", "--follow", "--limit", "1", "--topic", "signal.set", "--timeout", f"{DEADLINE_S:g}s"
        )
        assert json.loads(tail.stdout)["key"] == "k"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
    assert "coordinator serve" in lone.fails(7, "signal", "get", "k")["hint"]
