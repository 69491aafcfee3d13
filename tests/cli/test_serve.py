"""The daemon as the command line starts it, and the database of it that the command line finds."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess

import pytest

from tests.cli.conftest import Program
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.slow


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
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.communicate()
    assert "coordinator serve" in lone.fails(7, "signal", "get", "k")["hint"]


def test_a_person_sees_where_the_daemon_is_and_what_to_do_next(lone: Program) -> None:
    ours, theirs = pty.openpty()
    process = lone.start("serve", "--port", "0", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        seen = b""
        while b"Ctrl-C" not in seen:
            seen += os.read(ours, 4096)
        shown = dict(line.split(None, 1) for line in seen.decode().splitlines() if line.startswith("  "))
        assert shown["HTTP"].startswith("http://127.0.0.1:")
        assert lone.json("--url", shlex.split(shown["database"])[0], "project", "list")
        assert "coordinator event tail" in shown["next"]
    finally:
        process.terminate()
        while True:  # a terminal that nobody reads would hold up its end
            try:
                os.read(ours, 4096)
            except OSError:
                break
        process.wait(DEADLINE_S)
        os.close(ours)
