"""Load from pgbench, which comes with the server and costs far less processor time than Python would."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.place import Place

__all__ = ["SET_KEYS", "paced", "throughput", "transactions"]

# Every client writes its own keys, as agents do; 1,000 each.
SET_KEYS = "\\set k random(1, 1000)\n"


def _command(place: Place, script: Path, *arguments: str) -> list[str]:
    port = "5432"  # names the socket file
    program = str(place.bin_dir / "pgbench")
    return [
        program, "-n", "-M", "prepared", "-h", str(place.socket_dir), "-p", port, "-U", "coordinator",
        "-f", str(script), *arguments, "coordinator",
    ]  # fmt: skip


async def _run(place: Place, sql: str, *arguments: str) -> str:
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder:
        script = Path(folder) / "script.sql"
        script.write_text(sql, "utf-8")
        process = await asyncio.create_subprocess_exec(
            *_command(place, script, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PGOPTIONS": ""},
        )
        try:
            output = (await process.communicate())[0].decode("utf-8", "replace")
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise
    if process.returncode != 0:
        raise SystemExit(f"pgbench failed:\n{output}")
    return output


async def throughput(place: Place, sql: str, *, clients: int, seconds: float) -> float:
    """Run a script as fast as possible; return transactions per second."""
    output = await _run(place, sql, "-c", str(clients), "-j", "1", "-T", f"{seconds:.0f}")
    return _rate(output)


async def transactions(place: Place, sql: str, *, clients: int, count: int) -> None:
    """Run a script a given number of times."""
    await _run(place, sql, "-c", str(clients), "-j", "1", "-t", str(count // clients))


@asynccontextmanager
async def paced(
    place: Place, sql: str, *, clients: int, rate: float, seconds: float
) -> AsyncIterator[asyncio.Task[float]]:
    """Run a script at a rate while the context lasts; the task returns the rate that it reached."""

    async def run() -> float:
        return _rate(await _run(place, sql, "-c", str(clients), "-j", "1", "-R", f"{rate:.0f}", "-T", f"{seconds:.0f}"))

    task = asyncio.create_task(run())
    try:
        yield task
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _rate(output: str) -> float:
    match = re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)
    if match is None:
        raise SystemExit(f"pgbench did not say how fast it was:\n{output}")
    return float(match[1])
