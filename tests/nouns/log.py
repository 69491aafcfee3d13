from __future__ import annotations

from coordinator.model.operation import JsonText
from coordinator.operations import logs
from tests.conftest import Transaction

BATCH = "coordinator.log_append('default', 'note', 'k', {}::json)"

LIMITS = {
    "kind": ["coordinator.log_append('default', repeat('a', $1::integer), 'k', '[{\"data\": 1}]')"],
    "key": ["coordinator.log_append('default', 'note', repeat('ä', $1::integer), '[{\"data\": 1}]')"],
    "name": ["coordinator.log_append('default', 'note', 'k', '[{\"data\": 1}]', p_actor => repeat('a', $1::integer))"],
    "log_entry": [BATCH.format("""('[{"data": "' || repeat('x', $1::integer - 2) || '"}]')""")],
    "log_batch": [BATCH.format("""('[' || repeat('{"data": 1}, ', $1::integer - 1) || '{"data": 1}]')""")],
    "log_batch_bytes": [BATCH.format("""('[{"data": 1}' || repeat(' ', $1::integer - 13) || ']')""")],
    "json_depth": [BATCH.format("""('[{"data": ' || repeat('[', $1::integer) || repeat(']', $1::integer) || '}]')""")],
    "json_number": [BATCH.format("""('[{"data": 1.' || repeat('1', $1::integer - 2) || '}]')""")],
    "page": [
        "coordinator.log_list('default', p_limit => $1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.run(logs.Append(project="default", kind="note", key="k", entries=JsonText(b'[{"data": 1}, {"data": 2}]')))
    given = {"project": "default", "kind": "note", "key": "k"}
    await tx.run(logs.Pop(**given))
    await tx.run(logs.Keep(**given))
    await tx.run(logs.Clear(**given))
    await tx.run(logs.Delete(**given))
