from __future__ import annotations

import asyncpg
from msgspec import Raw

from coordinator.operations import documents
from tests.conftest import Transaction
from tests.nouns import Known, Pages

PUT = "coordinator.document_put('default', 'k', 'k', "

LIMITS = {
    "kind": ["coordinator.document_put('default', repeat('k', $1::integer), 'k', '1')"],
    "key": ["coordinator.document_put('default', 'k', repeat('ä', $1::integer), '1')"],
    "json_depth": [PUT + "(repeat('[', $1::integer) || repeat(']', $1::integer))::json)"],
    "json_number": [PUT + "('1.' || repeat('1', $1::integer - 2))::json)"],
    "ttl_max": [PUT + "'1', p_ttl => make_interval(secs => $1))"],
    "document": [
        PUT + "to_json(repeat('x', $1::integer - 2)))",
        """coordinator.document_patch('default', 'k', p.key, json_build_object('a', repeat('x', $1::integer - 10)))
             from coordinator.document_put('default', 'k', 'k', '{}') p""",
    ],
    "document_path": ["coordinator.check_path(array_fill('a'::text, array[$1::integer]))"],
    "page": ["coordinator.document_list('default', p_limit => $1::integer)"],
}

JSON = {
    "document_put": "coordinator.document_put('default', 'k', 'k', $1::text::json)",
    "document_patch": """coordinator.document_patch('default', 'k', p.key, json_build_object('k', $1::text::json))
                           from coordinator.document_put('default', 'k', 'k', '{}') p""",
    "document_item": """coordinator.document_item('default', 'todo', p.key, '1', json_build_object('k', $1::text::json))
                          from coordinator.document_put('default', 'todo', 'k', '[{"id": 1}]') p""",
}

ARGUMENTS = {
    "item": "'1'",
    "patch": "'{{}}'",
    ("document_put", "value"): "'[]'",
    ("document_diff", "version"): "1",
    ("document_item", "path"): "'{{items}}'",
    ("document_delete", "kind"): "'todo'",
    ("document_diff", "kind"): "'todo'",
    ("document_get", "kind"): "'todo'",
    ("document_history", "kind"): "'todo'",
    ("document_item", "kind"): "'todo'",
    ("document_keep", "kind"): "'todo'",
    ("document_patch", "kind"): "'todo'",
    ("document_put", "kind"): "'todo'",
    ("document_restore", "kind"): "'todo'",
    ("assert_document", "kind"): "'todo'",
}

OPTIONS_ADD = {
    "document_get": {"value": "the output"},
}
SPELLED = {
    "document_keep": {"kept": "not"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(documents.Put(project="default", kind="k", key="k", value=Raw(b"{}")))
    await tx.run(documents.Delete(project="default", kind="k", key="k"))


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    put = "select coordinator.document_put($1, $2, $3, $4::text::json)"
    for kind, key, value in (("note", "k", "{}"), ("note", "other", "{}"), ("todo", "k", '{"items": [{"id": 1}]}')):
        await connection.execute(put, project, kind, key, value)
    known |= {"kind": "note", "key": "other"}  # nothing deletes it


async def some_documents(tx: Transaction) -> None:
    for kind, key in (
        ("b", "x"),
        ("a", "y"),
        ("a", "x"),
        ("a", "é"),
        ("c", "x"),
        ("a", "x"),
        ("a", "x"),
        ("a", "x"),
        ("a", "x"),
    ):
        await tx.run(documents.Put(project="default", kind=kind, key=key, value=Raw(b"1")))


PAGES = [
    Pages(some_documents, documents.List(project="default"), 5),
    Pages(some_documents, documents.List(project="default", kind="a"), 3),
    Pages(some_documents, documents.History(project="default", kind="a", key="x"), 5),
]
