"""A holder in a process of its own. It locks, reports it, and checks the lock first when it wakes."""

from __future__ import annotations

import sys

import anyio

import coordinator
from coordinator.client import LockLost
from coordinator.telemetry import logs


async def main(url: str, ttl: float) -> None:
    async with (
        coordinator.connect(url, agent="sleeper", ttl=600) as client,
        client.lock("src/app.py", ttl=ttl, on_lost="keep") as held,
    ):
        print("held", flush=True)  # noqa: T201
        # Without the event loop, like a stopped process: only the check itself can reveal it.
        sys.stdin.readline()
        try:
            _ = held.token
        except LockLost:
            print("lost", flush=True)  # noqa: T201
        else:
            print("kept", flush=True)  # noqa: T201


if __name__ == "__main__":
    logs.configure()  # to standard error
    anyio.run(main, sys.argv[1], float(sys.argv[2]))
