from __future__ import annotations

from msgspec import Raw

from coordinator.operations import documents
from tests.conftest import Transaction

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


async def drive(tx: Transaction) -> None:
    await tx.run(documents.Put(project="default", kind="k", key="k", value=Raw(b"{}")))
    await tx.run(documents.Delete(project="default", kind="k", key="k"))
