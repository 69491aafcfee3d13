"""A process that lives by its connection: registers itself and an agent with an ephemeral signal, and waits to be killed.

As a program: `python -m tests.faults.holder <database URL> <name>` prints the agent's id.
"""

from __future__ import annotations

import sys

import anyio

from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.operations import agents, signals
from coordinator.operations.work import ProcessRegister


async def main(url: str, name: str) -> None:
    connection = await connect(url)
    process = await call(connection, ProcessRegister(kind="client", name=name))
    agent = await call(connection, agents.Register(project="default", name=name, process=process))
    await call(
        connection, signals.Set(project="default", key=f"here/{name}", value=True, agent=agent.id, ephemeral=True)
    )
    sys.stdout.write(f"{agent.id}\n")
    sys.stdout.flush()
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
