"""A process that takes a lock, makes sure that it has it, and is stopped at that very moment, before it writes.

As a program: `python -m tests.faults.lock_pauser <database URL> fenced|unfenced`; after SIGCONT it writes, and prints done or
the error's code.
"""

from __future__ import annotations

import os
import signal
import sys

import anyio
import asyncpg

from tests.daemon import opened

WRITE = "update public.work set body = $1"


async def main(url: str, how: str) -> None:
    async with opened(url) as connection:
        agent = await connection.fetchval(
            "select id from coordinator.agent_register('default', 'pauser', p_ttl => '1 day')"
        )
        token = await connection.fetchval(
            "select fencing_token from coordinator.lock_acquire('default', '{work}', $1, p_ttl => '1 hour')", agent
        )
        assert await connection.fetchval(
            "select state = 'mine' from coordinator.lock_check('default', '{work}', $1)", agent
        )
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            async with connection.transaction():
                if how == "fenced":
                    await connection.execute("select coordinator.assert_fence('default', 'work', $1)", token)
                await connection.execute(WRITE, how)
        except asyncpg.PostgresError as error:
            sys.stdout.write(f"{error.sqlstate}\n")
        else:
            sys.stdout.write("done\n")


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
