from __future__ import annotations

import msgspec

from coordinator.operations import projects, transfers
from tests.conftest import Transaction

HEADER = "jsonb_build_object('format', 'coordinator-project', 'version', 1, 'export', repeat('1', 32))"
END = "jsonb_build_object('type', 'end')"
LIMITS = {
    "project_name": [
        "coordinator.project_create(repeat('a', $1::integer))",
    ],
    "project_description": [
        "coordinator.project_create('p', repeat('a', $1::integer))",
    ],
    "import_lines": [
        f"coordinator.project_import('default', repeat('1', 32), (select jsonb_agg(case n when 1 then {HEADER} else {END} end order by n) from generate_series(1, $1::integer) n))",
    ],
    "import_body": [
        f"coordinator.project_import('default', repeat('1', 32), jsonb_build_array({HEADER}, {END} || jsonb_build_object('x', repeat('x', $1::integer - 121))))",
    ],
    "page": [
        "coordinator.project_list(p_limit => $1::integer)",
        "coordinator.project_export('default', p_limit => $1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))
    await tx.run(projects.Set(project="p", paths="exact"))
    export = [msgspec.json.decode(row.line) for row in await tx.run(transfers.Export(project="p"))]
    await tx.run(transfers.Import(project="p", export=export[0]["export"], lines=export))
    await tx.run(projects.Delete(project="p"))
