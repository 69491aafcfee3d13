from __future__ import annotations

import msgspec

from coordinator.operations import projects, transfers
from tests.conftest import Transaction
from tests.nouns import Pages
from tests.nouns.signal import some_signals

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

JSON = {
    "project_create": "coordinator.project_create('p', p_settings => jsonb_build_object('k', $1::text::jsonb))",
    "project_set": "coordinator.project_set('default', p_settings => jsonb_build_object('k', $1::text::jsonb))",
    "project_import": """from coordinator.project_import('default', repeat('1', 32), jsonb_build_array(
                           jsonb_build_object('format', 'coordinator-project', 'version', 1, 'export', repeat('1', 32)),
                           jsonb_build_object('type', 'signal', 'key', 'k', 'actor', 'a', 'created_at', now(), 'updated_at', now(), 'value', $1::text)))""",
}

ARGUMENTS = {
    ("project_create", "project"): "'made'",
    "export": "repeat('1', 32)",
    "lines": "jsonb_build_array(jsonb_build_object('format', 'coordinator-project', 'version', 1, 'export', repeat('1', 32)))",
}

PYTHON_LACKS = {
    "project_import": {"export": "in the lines", "done": "the database knows"},
}
PYTHON_ADDS = {
    "project_import": {"progress": "for people who wait"},
}
OPTIONS_LACK = {
    "project_export": {"after": "--file continues", "limit": "the export is printed whole"},
    "project_import": {"export": "in the lines", "done": "the database knows", "lines": "on standard input"},
}
OPTIONS_ADD = {
    "project_export": {"file": "standard output, or a file"},
    "project_delete": {"yes": "instead of the question"},
}
SPELLED = {
    "project_create": {"username": "user", "project": "name"},
    "project_set": {"username": "user", "project": "name"},
    "project_delete": {"project": "name"},
    "project_export": {"project": "name"},
    "project_import": {"project": "name"},
    "project_show": {"project": "name"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))
    await tx.run(projects.Set(project="p", paths="exact"))
    export = [msgspec.json.decode(row.line) for row in await tx.run(transfers.Export(project="p"))]
    await tx.run(transfers.Import(project="p", export=export[0]["export"], lines=export))
    await tx.run(projects.Delete(project="p"))


async def some_projects(tx: Transaction) -> None:
    for name in ("a", "a-b", "a_b", "z", "0"):
        await tx.run(projects.Create(project=name))


PAGES = [
    Pages(some_projects, projects.List(), 6),
    Pages(some_signals, transfers.Export(project="default"), 9),
]
