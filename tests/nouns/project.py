from __future__ import annotations

from coordinator.operations import projects
from tests.conftest import Transaction

LIMITS = {
    "project_name": [
        "coordinator.project_create(repeat('a', $1::integer))",
    ],
    "project_description": [
        "coordinator.project_create('p', repeat('a', $1::integer))",
    ],
    "page": [
        "coordinator.project_list(p_limit => $1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))
    await tx.run(projects.Set(project="p", paths="exact"))
    await tx.run(projects.Delete(project="p"))
