"""State machines that compare the database with a model, in a transaction that is rolled back after each run."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from coordinator.db.connection import connect
from coordinator.errors import CoordinatorError
from tests.conftest import Transaction

__all__ = ["Machine", "check"]


class Machine(RuleBasedStateMachine):
    """A machine on a connection that all its runs share; `begin` starts the transaction."""

    loop: asyncio.AbstractEventLoop
    connection: asyncpg.Connection
    tx: Transaction

    def do(self, call: Any) -> Any:
        return self.loop.run_until_complete(call)

    def begin(self) -> None:
        self.transaction = self.connection.transaction()
        self.do(self.transaction.start())
        self.tx = Transaction(self.connection)

    def run(self, operation: Any) -> tuple[str | None, Any]:
        """Run an operation in a savepoint; return the code of its error, and its result."""
        savepoint = self.connection.transaction()
        self.do(savepoint.start())
        try:
            result = self.do(self.tx.run(operation))
        except CoordinatorError as error:
            self.do(savepoint.rollback())
            return error.code, None
        self.do(savepoint.commit())
        return None, result

    def teardown(self) -> None:
        if hasattr(self, "transaction"):
            self.do(self.transaction.rollback())


def check(machine: type[Machine], url: str, *, examples: int) -> None:
    """Run a machine as often as `examples` says, each time with other steps."""
    with asyncio.Runner() as runner:
        loop, connection = runner.get_loop(), runner.run(connect(url))
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            type("Machine", (machine,), {"loop": loop, "connection": connection}),
            settings=settings(
                max_examples=examples,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )
        runner.run(connection.close())
