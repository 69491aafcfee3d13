"""What every documented error has in common."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.errors import CoordinatorError, from_sqlstate
from coordinator.model.operation import Operation
from tests.conftest import Transaction


async def refused(tx: Transaction, operation: Operation[Any], code: str) -> CoordinatorError:
    """Run an operation that must be refused with this code, a message, a hint, and no trace."""
    before = await tx.events()
    with pytest.raises(CoordinatorError) as raised:
        await tx.run(operation)
    error = raised.value
    assert error.code == code, f"{error.code}: {error.message}"
    assert type(error) is from_sqlstate(code)
    assert error.message
    assert error.hint
    assert await tx.events() == before
    return error
