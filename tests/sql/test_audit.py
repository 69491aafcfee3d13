"""What managers and administrators do is in the log of audits, once, in its transaction, and without secrets."""

from __future__ import annotations

import pytest

from tests.conftest import Transaction
from tests.nouns.user import PHC

SETUP = """
select coordinator.project_create('p');
select coordinator.user_create('old', 'admin');
select coordinator.session_create('p', 's');
select coordinator.document_put('p', 'plan', 'd', '{}');
select coordinator.log_append('p', 'note', 'l', '[{"data": 1}]'::json);
select coordinator.token_create('t', 'agent', repeat('c', 64), 'coo_abcd', 'p');
select coordinator.lock_acquire('p', '{src/}', (select id from coordinator.agent_register('p', 'a')));
select coordinator.role_bind('pg_read_all_data', 'p');
select coordinator.project_create('empty');
"""
EXPORT = '[{"format": "coordinator-project", "version": 1, "export": "' + "0" * 32 + '"}, {"type": "end"}]'
NEWEST = "(select max(id) from coordinator.tokens)"
# call, project, subject
CALLS = {
    "user_create": (f"user_create('new', p_hash => '{PHC}')", None, "new"),
    "user_set": ("user_set('OLD', 'reader')", None, "old"),
    "user_password": (f"user_password('old', '{PHC}')", None, "old"),
    "user_delete": ("user_delete('old')", None, "old"),
    "token_create": ("token_create('u', 'agent', repeat('d', 64), 'coo_dddd', 'p')", "p", None),
    "token_revoke": (f"token_revoke({NEWEST})", "p", None),
    "role_bind": ("role_bind('pg_monitor', 'p')", "p", "pg_monitor"),
    "role_unbind": ("role_unbind('pg_read_all_data', 'p')", "p", "pg_read_all_data"),
    "project_create": ("project_create('q')", None, "q"),
    "project_set": ("project_set('p', p_title => 'T')", "p", "p"),
    "project_import": (f"project_import('empty', repeat('0', 32), '{EXPORT}')", "empty", "empty"),
    "project_delete": ("project_delete('p')", None, "p"),
    "lock_break": ("lock_break('p', 'src/', 'it hangs')", "p", "src/"),
    "retention_set": ("retention_set('p', 'log', 'note', '1 day')", "p", "log/note"),
    "session_delete": ("session_delete('p', 's')", "p", "s"),
    "document_delete": ("document_delete('p', 'plan', 'd')", "p", "plan/d"),
    "log_delete": ("log_delete('p', 'note', 'l')", "p", "note/l"),
}
TRAIL = "select project, action, subject, actor, detail::text from coordinator.audit_trail order by created_at, seq"


@pytest.mark.parametrize("action", CALLS)
async def test_a_call_is_recorded_once_with_who_made_it(tx: Transaction, action: str) -> None:
    call, project, subject = CALLS[action]
    await tx.connection.execute(SETUP)
    trail = {tuple(row) for row in await tx.connection.fetch(TRAIL)}
    arguments = call.removesuffix(")") + ", p_actor => 'boss')"
    await tx.connection.execute(f"select coordinator.{arguments}")
    (added,) = {tuple(row) for row in await tx.connection.fetch(TRAIL)} - trail
    assert added[:2] == (project, action)
    assert subject in (None, added[2])
    assert added[3] == "boss"
    assert "scrypt" not in added[4]
    assert "dddd" not in added[4]


async def test_what_changes_nothing_and_what_fails_is_not_recorded(tx: Transaction) -> None:
    await tx.connection.execute(SETUP)
    before = await tx.connection.fetch(TRAIL)
    for call in ("user_set('old', 'admin')", "project_set('p', p_title => '')", "role_unbind('pg_monitor', 'p')"):
        await tx.connection.execute(f"select coordinator.{call}")
    with pytest.raises(Exception, match="already exists"):
        async with tx.connection.transaction():
            await tx.connection.execute("select coordinator.user_create('old')")
    assert await tx.connection.fetch(TRAIL) == before
