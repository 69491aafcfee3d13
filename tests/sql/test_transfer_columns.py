"""An export has every table and column of a project, but for those that are named here, each with its reason.

A new table or column fails until somebody says which it is: what is exported must have a value in ``FILLED``, and come back.
"""

from __future__ import annotations

import json
from typing import Any

from coordinator.operations import transfers
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.sql.test_transfer import exported, imported

LEFT_TABLES = {
    "run here, not where it is imported": (
        "agents agents_ended processes leaders directives directive_receipts locks lock_waits lock_breaks queues crons job_classes "
        "job_lanes job_permits jobs_open jobs_ready jobs_later jobs_running job_dedupes jobs_ended jobs_waiting job_dependencies "
        "jobs_unsettled job_steps_open job_waits job_watches job_wait_log job_chunks_open job_limits job_slots job_buckets "
        "job_limit_waits job_tree_waits job_keys job_budgets job_charges job_lock_waits job_lock_turns job_placements job_changes "
        "briefings files_seen webhooks webhook_deliveries webhook_log"
    ),
    "happened here": "events event_chunks idempotency_keys audit_anchors audit_applied audit_cursor audit_policies",
    "access is granted here, and secrets stay": "tokens role_projects users user_passwords user_attempts",
    "of the database, not of a project": "event_types rights limits metrics checks transaction_verbs relay epochs schema_files schema_roles schema_compatibility backups sizes",
    "progress of work here": "retention_sweeps project_imports",
    "where bytes are kept here: an export has the bytes": "artifact_objects",
}
LEFT_COLUMNS = {
    "numbers of this database": "*.id *.project_id artifact_blobs.upload",
    "the epoch of the import": "logs.epoch entries.epoch documents.epoch document_versions.epoch",
    "of the project that imports": "projects.name projects.created_at projects.updated_at",
    "one sequence for all signals": "signals.version",
    "such signals end with their agents, which are not exported": "signals.agent_id",
    "what is deleted is not exported": "logs.deleted documents.deleted",
    "of entries of the audit trail, which stays where it happened": "entries.hash",
    "whether an object store has the bytes, which are exported": "artifact_blobs.stored",
    "what an append has checked here": "logs.open_until logs.open_to",
    "computed from the policies of retention": "sessions.trim_at logs.trim_at logs.trim_from artifacts.trim_at artifact_blobs.due_at",
    "lexemes that name the project, compared by searching": "document_words.words document_embeddings.fields",
}
FILLED = """
select coordinator.user_create('ada');
select coordinator.project_create('a', 'D', 'ada', 'T', '{"x": [1.50]}');
select coordinator.project_set('a', p_paths => 'exact');
select coordinator.project_create('b');
select coordinator.retention_set('a', 'log', 'note', '400 days', 5, p_actor => 'me');
select coordinator.rule_set('a', 'R', '{X,Y}');
select coordinator.signal_set('a', 'k/é', '{"x": 1.5}', '1 hour', p_actor => 'me');
select coordinator.signal_set('a', 'k/critical', '1', p_critical => true);
select coordinator.session_create('a', 's', 'ada', 'T', 'M', 'busy', '{"a": [1]}', 'me');
select coordinator.log_append('a', 'message', 's', $json$[
  {"data": {"role": "assistant", "tool_calls": [{"id": "c1"}]}, "tokens": 7, "uid": "u1"},
  {"data": {"role": "tool", "tool_call_id": "c1", "content": "\\u0000\\ud83d 1e16"}}]$json$);
select coordinator.log_keep('a', 'message', 's', 2);
select coordinator.log_keep('a', 'message', 's');
select coordinator.log_append('a', 'note', 'cleared', '[{"data": 1}, {"data": 2}]');
select coordinator.log_clear('a', 'note', 'cleared');
select coordinator.log_append('a', 'note', 'cleared', '[{"data": 3}]');
select coordinator.document_put('a', 'plan', 's', '"\\ud800"', p_session => 's', p_ttl => '1 hour', p_actor => 'me');
select coordinator.document_delete('a', 'plan', 's');
select coordinator.document_restore('a', 'plan', 's', p_ttl => '2 hours');
select coordinator.document_keep('a', 'plan', 's');
select coordinator.memory_record('a', 'It rained.', 'weather', 'sky', p_embedding => '{0.1,-1e-5,3}');
select coordinator.knowledge_put('a', 'rain', 'Water falls.', p_metadata => '{"n": 1}', p_embedding => '{1,0,0.3333333333}');
select coordinator.knowledge_put('a', 'rain', 'Water falls.', p_metadata => '{"n": 2}');
select coordinator.knowledge_put('a', 'gone', 'Once.', p_embedding => '{1}');
select coordinator.knowledge_delete('a', 'gone');
select coordinator.document_restore('a', 'knowledge', 'gone');
select coordinator.artifact_put('a', 'report', '\\x616263', 'text/plain', p_session => 's', p_actor => 'me');
select coordinator.artifact_put('a', 'copy', '\\x616263');
select coordinator.artifact_keep('a', 'copy');
select coordinator.session_fork('a', 's', p_copy => 'f');
"""
PARENTS = {"log_id": "logs", "document_id": "documents", "blob_id": "artifact_blobs", "session_id": "sessions"}
NAMES = {  # the name of a row, which replaces its number
    "logs": "concat(kind, '/', key)",
    "documents": "concat(kind, '/', key)",
    "artifact_blobs": "sha256",
    "sessions": "key",
    "users": "username",
}
COLUMNS = """
select c.relname::text, array_agg(a.attname::text order by a.attnum)
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition group by 1"""

left_tables = {table for listed in LEFT_TABLES.values() for table in listed.split()}
left_columns = {column for listed in LEFT_COLUMNS.values() for column in listed.split()}


async def contents(tx: Transaction, project: str, columns: dict[str, list[str]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the tables that are exported: by table, with names for numbers. Audits stay where they happened."""
    number = await tx.connection.fetchval("select id from coordinator.projects where name = $1", project)
    names = {
        table: dict(await tx.connection.fetch(f"select id, {name} from coordinator.{table}"))
        for table, name in NAMES.items()
    }
    found = {}
    for table, its in columns.items():
        kept = [column for column in its if not {f"*.{column}", f"{table}.{column}"} & left_columns]
        owner = "id" if table == "projects" else "project_id" if "project_id" in its else None
        parent = next((column for column in PARENTS if column in its), "")
        where = (
            f"{owner} = $1"
            if owner
            else f"{parent} in (select id from coordinator.{PARENTS[parent]} where project_id = $1)"
        )
        texts = await tx.connection.fetch(
            f"select row_to_json(r)::text from coordinator.{table} r where {where}", number
        )
        rows = [{column: json.loads(text)[column] for column in kept} for (text,) in texts]
        for row in rows:
            for column in {*row} & {*PARENTS, "user_id"}:
                row[column] = names[PARENTS.get(column, "users")].get(row[column])
        rows = [row for row in rows if "audit" not in (row.get("kind"), str(row.get("log_id")).partition("/")[0])]
        found[table] = sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))
    return found


async def test_each_table_and_column_of_a_project_is_imported_or_omitted_for_a_reason(tx: Transaction) -> None:
    columns = dict(await tx.connection.fetch(COLUMNS))
    assert not left_tables - {*columns}
    assert not left_columns - {
        f"{table}.{column}" for table in ("*", *columns) for column in columns.get(table, ["id", "project_id"])
    }
    transferred = {table: its for table, its in columns.items() if table not in left_tables}
    await tx.connection.execute(FILLED)
    before = await contents(tx, "a", transferred)
    unused = [
        f"{table}.{column}"
        for table, rows in before.items()
        for column in (rows[0] if rows else ["no row"])
        if not any(row.get(column) not in (None, "", False, [], {}) for row in rows)
    ]
    assert not unused, "fill it, or say why it is left out"
    lines = [row.line for row in await exported(tx, "a")]
    assert (await imported(tx, lines)).finished
    assert await contents(tx, "b", transferred) == before
    again = [row.line for row in await exported(tx, "b")]
    assert again[1:] == lines[1:]
    searches = [
        f"select array(select memory_id from coordinator.memory_search('{project}', 'rained')), "
        f"array(select key from coordinator.knowledge_search('{project}', 'water', p_metadata => '{{\"n\": 2}}'))"
        for project in "ab"
    ]
    found = [tuple(await tx.connection.fetchrow(search)) for search in searches]
    assert found[0] == found[1]
    assert all(found[0])


async def test_what_the_project_was_given_before_stays(tx: Transaction) -> None:
    await tx.connection.execute(FILLED)
    await tx.connection.execute(
        "select coordinator.user_create('bob'); "
        "select coordinator.project_set('b', 'caseless', 'here', 'bob', 'Here', '{\"here\": true}')"
    )
    ours = "select description, title, settings, paths, user_id from coordinator.projects where name = 'b'"
    before = await tx.connection.fetchrow(ours)
    await imported(tx, [row.line for row in await exported(tx, "a")])
    assert await tx.connection.fetchrow(ours) == before


async def test_a_user_who_is_missing_stops_an_import_until_there_is_one_or_it_is_allowed(tx: Transaction) -> None:
    await tx.connection.execute(FILLED)
    lines = [row.line for row in await exported(tx, "a")]
    await tx.connection.execute("select coordinator.user_delete('ada'); select coordinator.project_create('c')")
    decoded = [json.loads(line) for line in lines]
    for place, kind in (
        (1, "project"),
        (next(n for n, line in enumerate(decoded) if line.get("type") == "session"), "session"),
    ):
        assert decoded[place]["type"] == kind
        batch = [decoded[0], decoded[place]]
        error = await refused(tx, transfers.Import(project="b", export=decoded[0]["export"], lines=batch), "ZC220")
        assert "ada" in error.message
        assert error.message.startswith("line 2: ")
        assert "--allow-missing-users" in (error.hint or "")
    assert (await transfers.import_lines(tx.run, "c", lines, allow_missing_users=True)).finished
    without = [line.replace('"username" : "ada"', '"username" : null') for line in lines[1:]]
    assert [row.line for row in await exported(tx, "c")][1:] == without
    await tx.connection.execute("select coordinator.user_create('ada')")
    assert (await imported(tx, lines)).finished
    assert [row.line for row in await exported(tx, "b")][1:] == lines[1:]


async def test_a_rule_for_paths_waits_until_no_path_is_locked(tx: Transaction) -> None:
    await tx.connection.execute(FILLED)
    lines = [row.line for row in await exported(tx, "a")]
    agent = await tx.connection.fetchval("select id from coordinator.agent_register('b', 'me')")
    await tx.connection.execute("select coordinator.lock_acquire('b', '{src/}', $1)", agent)
    decoded = [json.loads(line) for line in lines[:2]]
    error = await refused(tx, transfers.Import(project="b", export=decoded[0]["export"], lines=decoded), "ZC316")
    assert error.message.startswith("line 2: ")
    await tx.connection.execute("select coordinator.agent_deregister($1)", agent)
    assert (await imported(tx, lines)).finished
