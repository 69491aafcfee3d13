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
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path

from bench.gateway import cpu_s, process
from bench.http import Connection, request
from bench.place import Options, fresh
from bench.report import Table, load, percentile

__all__ = ["run"]

SESSIONS = 50
PAUSE_S = 0.2  # between the calls of each
RUNS = 10
MANY, MANY_PAUSE_S = 1000, 1.0
MS, COLD_MS = (5, 50), 150


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure the usual calls of sessions: read, edit, shell command, end of a turn."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "init", "--quiet", folder], check=True)
        async with fresh(options) as place, process("daemon", place.dsn) as (port, pid):
            seconds = options.rounds * options.round_s
            few = await _begun(port, Path(folder), range(SESSIONS))
            times = await _calls(few, PAUSE_S, seconds)
            many = await _begun(port, Path(folder), range(SESSIONS, SESSIONS + MANY))
            began, spent_s = time.perf_counter(), cpu_s(pid)
            calls = len(await _calls(many, MANY_PAUSE_S, seconds))
            rate, cost_s = calls / (time.perf_counter() - began), (cpu_s(pid) - spent_s) / calls
            cold = _cold([place.dsn, f"http://127.0.0.1:{port}"], Path(folder))
    p50, p99 = percentile(times, 50), percentile(times, 99)
    share = MANY / MANY_PAUSE_S * cost_s
    rows = [
        [f"over HTTP, {SESSIONS} sessions", f"{p50:.1f} ms p50", _met(p50, MS[0])],
        ["", f"{p99:.1f} ms p99", _met(p99, MS[1])],
        [f"{MANY} sessions, a call a second each", f"{share:.2f} processors of the daemon", _met(share, 1)],
        ["coordinator hook run, PostgreSQL", f"{cold[0]:.0f} ms of a processor", _met(cold[0], COLD_MS)],
        ["coordinator hook run, HTTP", f"{cold[1]:.0f} ms of a processor", _met(cold[1], COLD_MS)],
    ]
    notes = [
        f"{len(times)} calls of {SESSIONS} sessions, each one every {PAUSE_S:g} s; {calls} of {MANY} sessions, {rate:.0f} a second.",
        f"A process: the least of {RUNS}. Load average at the end {load():.1f}.",
    ]
    yield Table("Hooks of coding agents", ["what", "takes", "target"], rows, notes)


def _met(value: float, target: float) -> str:
    return f"≤ {target:g}: {'met' if value <= target else 'MISSED'}"


def _payload(folder: Path, session: str, event: str, tool: str = "", **arguments: str) -> bytes:
    call = {"tool_name": tool, "tool_input": arguments} if tool else {}
    return json.dumps({"session_id": session, "cwd": str(folder), "hook_event_name": event, **call}).encode()


def _requests(folder: Path, name: str) -> list[bytes]:
    """Return the calls of a turn."""
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
    return [request("POST", "/v1/hooks/claude-code", call) for call in calls]


async def _begun(port: int, folder: Path, numbers: Iterable[int]) -> list[tuple[Connection, list[bytes]]]:
    """Make the calls of each session once, of which the first registers it; return its connection and its calls."""
    at_once = asyncio.Semaphore(SESSIONS)

    async def begun(number: int) -> tuple[Connection, list[bytes]]:
        async with at_once:
            connection, requests = await Connection.open(port), _requests(folder, f"s{number}")
            for one in requests:
                await connection.send(one)
        return connection, requests

    return await asyncio.gather(*map(begun, numbers))


async def _calls(sessions: Sequence[tuple[Connection, list[bytes]]], pause_s: float, seconds: float) -> list[float]:
    """Repeat the calls of sessions, each at another point of its turn; return how long each took, in milliseconds."""
    times: list[float] = []

    async def calls(number: int, connection: Connection, requests: list[bytes]) -> None:
        await asyncio.sleep(pause_s * number / len(sessions))
        ends_at = time.perf_counter() + seconds
        for one in islice(cycle(requests), number % len(requests), None):
            began = time.perf_counter()
            if began >= ends_at:
                break
            await connection.send(one)
            times.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(pause_s)
        connection.close()

    await asyncio.gather(*(calls(number, *session) for number, session in enumerate(sessions)))
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
