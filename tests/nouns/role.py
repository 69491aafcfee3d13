from __future__ import annotations

from tests.conftest import Transaction

LIMITS = {
    "role_name": [
        "coordinator.role_unbind(repeat('a', $1::integer), 'default')",
    ],
}

ARGUMENTS = {
    ("role_bind", "role"): "current_user",
    ("role_unbind", "role"): "current_user",
}


async def drive(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.role_bind(session_user::text, 'default')")
    await tx.connection.execute("delete from coordinator.role_projects")  # else this very role could not unbind itself
    await tx.connection.execute("insert into coordinator.role_projects values ('r', 'default')")
    await tx.connection.execute("select coordinator.role_unbind('r', 'default')")
