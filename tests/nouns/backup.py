from __future__ import annotations

from tests.conftest import Transaction

LIMITS = {
    "backup_name": [
        "coordinator.backup_record(repeat('a', $1::integer))",
        "coordinator.backup_record('a', p_tool => repeat('a', $1::integer))",
    ],
    "backup_error": [
        "coordinator.backup_record('a', p_error => repeat('a', $1::integer))",
    ],
    "page": [
        "coordinator.backup_list($1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.backup_record('a')")
    await tx.connection.execute("select coordinator.backup_record('b', p_error => 'no space left')")
    await tx.connection.execute("select coordinator.backup_verified('a')")
    await tx.connection.execute("select coordinator.backup_restored('a')")
