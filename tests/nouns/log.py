from __future__ import annotations

import asyncpg

from coordinator.model.operation import JsonText
from coordinator.operations import logs
from tests.conftest import Transaction
from tests.nouns import Known, Pages

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

JSON_UNREAD = {
    "log_append": "it keeps the text: see test_log.py",
}

ARGUMENTS = {
    "entries": """'[{{"data": 1}}]'""",
    ("log_append", "kind"): "'note'",
    ("log_clear", "kind"): "'note'",
    ("log_delete", "kind"): "'note'",
    ("log_keep", "kind"): "'note'",
    ("log_pop", "kind"): "'note'",
    ("log_read", "kind"): "'note'",
    ("log_show", "kind"): "'note'",
}

PYTHON_LACKS = {
    "log_append": {"epoch": "of what expect takes"},
    "log_clear": {"epoch": "of what expect takes"},
    "log_delete": {"epoch": "of what expect takes"},
    "log_pop": {"epoch": "of what expect takes"},
}
OPTIONS_ADD = {
    "log_append": {
        "data": "of an entry",
        "needs": "of an entry",
        "role": "of an entry",
        "tokens": "of an entry",
        "uid": "of an entry",
        "json": "how the argument is read",
        "text": "how the argument is read",
    },
    "log_read": {"data": "the output"},
}
SPELLED = {
    "log_keep": {"kept": "not"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(logs.Append(project="default", kind="note", key="k", entries=JsonText(b'[{"data": 1}, {"data": 2}]')))
    given = {"project": "default", "kind": "note", "key": "k"}
    await tx.run(logs.Pop(**given))
    await tx.run(logs.Keep(**given))
    await tx.run(logs.Clear(**given, kept=True))
    await tx.run(logs.Delete(**given))


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    for key in ("k", "other"):
        await connection.execute("select coordinator.log_append($1, 'note', $2, '[{\"data\": 1}]')", project, key)
    known |= {"kind": "note", "key": "other"}  # nothing deletes it


async def some_logs(tx: Transaction) -> None:
    for kind, key in (
        ("note", "a"),
        ("note", "a/b"),
        ("note", "a/c"),
        ("note", "aa"),
        ("note", "Z"),
        ("note", "é"),
        ("other", "a"),
        ("a-b", "z"),
    ):
        await tx.run(
            logs.Append(project="default", kind=kind, key=key, entries=JsonText(b'[{"data": 1}, {"data": 2}]'))
        )


async def a_log(tx: Transaction) -> None:
    for _ in range(3):
        await some_logs(tx)


PAGES = [
    Pages(some_logs, logs.List(project="default"), 8),
    Pages(some_logs, logs.List(project="default", kind="note", prefix="a"), 4),
    Pages(a_log, logs.Read(project="default", kind="note", key="a"), 6),
    Pages(a_log, logs.Read(project="default", kind="note", key="a", last=5), 5),
]
