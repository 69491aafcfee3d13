"""The PostgreSQL of the suite, as a program: it prints its address. When its standard input ends, it ends and leaves nothing.

The first argument is the folder of its programs, the second is the data directory of a stopped server, of which it uses a copy.
Either may be empty.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import anyio

from coordinator import embedded
from coordinator.telemetry import logs

# Nothing in the suite loses power; tests of durability start servers of their own.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "300"}

MEMORY_DISK = "/dev/shm"  # noqa: S108 - there, making and dropping a database takes a third of the processor time
PREFIX = "coordinator-test-"
FREE_BYTES = 4 * 2**30  # what all servers of the suite may need


def disk(*, programs: bool = False) -> str | None:
    """Return the memory disk if it has enough space, and executes programs if that is needed."""
    with suppress(OSError):
        noexec = os.statvfs(MEMORY_DISK).f_flag & os.ST_NOEXEC
        if shutil.disk_usage(MEMORY_DISK).free > FREE_BYTES and not (programs and noexec):
            return MEMORY_DISK
    return None


def remove_remains(place: Path) -> None:
    """Remove what servers left that were killed with all that they had started: the memory disk is memory."""
    for folder in place.glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


async def main(bin_dir: str, copy_of: str) -> None:
    remove_remains(Path(MEMORY_DISK))
    prefix = f"{PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=disk(), ignore_cleanup_errors=True) as folder:
        if copy_of:
            await anyio.run_process(["cp", "-a", f"{copy_of}/.", folder])
        programs = Path(bin_dir) if bin_dir else None
        async with embedded.run(Path(folder), bin_dir=programs, settings=SETTINGS) as server:
            print(server.dsn, flush=True)  # noqa: T201
            await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    logs.configure(level="warning")
    anyio.run(main, *sys.argv[1:])
