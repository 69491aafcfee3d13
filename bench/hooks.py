"""Hooks over HTTP: how long a call takes with many sessions, and what it costs the daemon; and a process that answers one."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bench.gateway import cpu_s, process
from bench.http import Connection, request
from bench.place import Options, fresh
from bench.report import Table, load, percentile

__all__ = ["run"]

SESSIONS = 50
PAUSE_S = 0.2  # between the calls of a session
RUNS = 10
MANY = 1000  # sessions with a call a second
MS, COLD_MS = (5, 50), 150


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure a session's usual calls: read, edit, shell command, end of a turn."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "init", "--quiet", folder], check=True)
        async with fresh(options) as place, process("daemon", place.dsn) as (port, pid):
            seconds = options.rounds * options.round_s
            sessions = await asyncio.gather(*(_begun(port, Path(folder), number) for number in range(SESSIONS)))
            began = cpu_s(pid)
            found = await asyncio.gather(
                *(_session(*one, PAUSE_S * number / SESSIONS, seconds) for number, one in enumerate(sessions))
            )
            times = [ms for session in found for ms in session]
            cost_us = (cpu_s(pid) - began) / len(times) * 1e6
            cold = _cold([place.dsn, f"http://127.0.0.1:{port}"], Path(folder))
    p50, p99 = percentile(times, 50), percentile(times, 99)
    share = MANY * cost_us / 1e6
    rows = [
        [f"over HTTP, {SESSIONS} sessions", f"{p50:.1f} ms p50", _met(p50, MS[0])],
        ["", f"{p99:.1f} ms p99", _met(p99, MS[1])],
        [f"{MANY} sessions, a call a second each", f"{share:.2f} processors of the daemon", _met(share, 1)],
        ["coordinator hook run, PostgreSQL", f"{cold[0]:.0f} ms of a processor", _met(cold[0], COLD_MS)],
        ["coordinator hook run, HTTP", f"{cold[1]:.0f} ms of a processor", _met(cold[1], COLD_MS)],
    ]
    note = f"{len(times)} calls, each session one every {PAUSE_S:g} s. A process: the least of {RUNS}. Load average at the end {load():.1f}."
    yield Table("Hooks of coding agents", ["what", "takes", "target"], rows, [note])


def _met(value: float, target: float) -> str:
    return f"≤ {target:g}: {'met' if value <= target else 'MISSED'}"


def _payload(folder: Path, session: str, event: str, tool: str = "", **arguments: str) -> bytes:
    call = {"tool_name": tool, "tool_input": arguments} if tool else {}
    return json.dumps({"session_id": session, "cwd": str(folder), "hook_event_name": event, **call}).encode()


async def _begun(port: int, folder: Path, number: int) -> tuple[Connection, list[bytes]]:
    """Make the calls of a session once, of which the first registers it; return its connection and its calls."""
    name = f"s{number}"
    path = str(folder / f"{name}.py")
    calls = [
        _payload(folder, name, event, tool, **arguments)
        for tool, arguments in (
            ("Read", {"file_path": path}),
            ("Edit", {"file_path": path}),
            ("Bash", {"command": "ls"}),
        )
        for event in ("PreToolUse", "PostToolUse")
    ]
    calls.append(_payload(folder, name, "Stop"))
    requests = [request("POST", "/v1/hooks/claude-code", call) for call in calls]
    connection = await Connection.open(port)
    for one in requests:
        await connection.send(one)
    return connection, requests


async def _session(connection: Connection, requests: list[bytes], begin_s: float, seconds: float) -> list[float]:
    """Repeat the calls of a session; return how long each took, in milliseconds."""
    times: list[float] = []
    await asyncio.sleep(begin_s)
    ends_at = time.perf_counter() + seconds
    while time.perf_counter() < ends_at:
        for one in requests:
            began = time.perf_counter()
            await connection.send(one)
            times.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(PAUSE_S)
    connection.close()
    return times


def _cold(urls: Sequence[str], folder: Path) -> list[float]:
    """Return the processor time of a process that answers one call, in milliseconds, for each address, in alternation."""
    payload = _payload(folder, "cold", "PreToolUse", "Edit", file_path="cold.py")
    least = dict.fromkeys(urls, float("inf"))
    with tempfile.TemporaryDirectory() as compiled:  # the modules are compiled, as in an installation
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": compiled}
        for _ in range(RUNS):
            for url in urls:
                command = [sys.executable, "-m", "coordinator", "hook", "run", "--limit", "10s", "--url", url]
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(command, input=payload, check=True, capture_output=True, cwd=folder, env=environ)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                least[url] = min(least[url], spent)
    return [least[url] * 1000 for url in urls]
