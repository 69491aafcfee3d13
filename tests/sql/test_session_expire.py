from __future__ import annotations

from datetime import timedelta

from coordinator.model.operation import JsonText
from coordinator.operations import logs, projects, retentions, sessions
from tests.conftest import Transaction

P = "default"
DAY = timedelta(days=1)


async def expire(tx: Transaction) -> int:
    gone = 0
    while results := await tx.run(retentions.ExpireSessions()):
        gone += sum(result.removed for result in results)
    return gone


async def used(tx: Transaction, session: str, project: str = P) -> None:
    entries = JsonText(b'[{"data":{"role":"user","content":"x"}}]')
    await tx.run(logs.Append(project=project, kind="note", key=session, entries=entries, session=session))


async def present(tx: Transaction) -> list[str]:
    return sorted(row.session for row in await tx.run(sessions.List(project=P)))


async def test_an_idle_session_goes_with_its_contents_unless_something_is_kept(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for session in ("idle", "busy", "kept"):
        await used(tx, session)
    await tx.run(logs.Keep(project=P, kind="note", key="kept", first_seq=1))
    await tx.set_clock(50 * DAY)
    await used(tx, "busy")
    assert await expire(tx) == 0
    await tx.set_clock(91 * DAY)
    assert "session_expire" in await tx.connection.fetchval("select coordinator.work_due()")
    assert [(row.subject, row.removed) for row in await tx.run(retentions.Preview(project=P))] == [("session", 1)]
    assert (await expire(tx), await present(tx)) == (1, ["busy", "kept"])
    assert [row.key for row in await tx.run(logs.List(project=P, kind="note"))] == ["busy", "kept"]
    assert "session_expire" not in await tx.connection.fetchval("select coordinator.work_due()")


async def test_another_policy_reaches_the_sessions_that_are_there(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    await used(tx, "a")
    await tx.run(retentions.Set(project=P, subject="session", max_age=DAY))
    while await tx.run(retentions.Sweep()):
        pass
    assert await expire(tx) == 0
    await tx.set_clock(DAY)
    assert (await expire(tx), await present(tx)) == (1, [])


async def test_projects_share_the_entries_that_a_run_removes(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for project in ("a", "b"):
        await tx.run(projects.Create(project=project))
        for _ in range(150):
            await used(tx, "s", project)
    await tx.set_clock(91 * DAY)
    left = "select l.count from coordinator.logs l where l.kind = 'note' and l.key = 's' order by l.project_id"
    for now in ([50, 50], [0, 0]):
        await tx.run(retentions.ExpireSessions(limit=2))
        assert [row["count"] for row in await tx.connection.fetch(left)] == now
    assert await tx.run(retentions.ExpireSessions(limit=2)) == []


async def test_a_session_with_much_content_goes_in_portions(tx: Transaction) -> None:
    for _ in range(3):
        await used(tx, "s")
    for n in range(3):
        await tx.connection.execute(
            "select coordinator.document_put($1, 'note', 's/' || $2, '1', p_session => 's')", P, str(n)
        )
        await tx.connection.execute(
            "select coordinator.artifact_put($1, $2, convert_to($2, 'UTF8'), p_session => 's')", P, str(n)
        )
    contents = """
        select array[(select count(*) from coordinator.entries e join coordinator.logs l on l.id = e.log_id where l.session_id = s.id),
                     (select count(*) from coordinator.documents d where d.session_id = s.id),
                     (select count(*) from coordinator.artifacts a where a.session_id = s.id)]
        from coordinator.sessions s where s.key = 's'"""
    portion = """
        select coordinator.session_remove(s.id, 'deleted', 'a', coordinator.now_utc(), 2) from coordinator.sessions s where s.key = 's'"""
    seen = []
    while not await tx.connection.fetchval(portion):
        seen.append(await tx.connection.fetchval(contents))
    assert seen == [[1, 3, 3], [0, 1, 3], [0, 0, 1]]
    assert await present(tx) == []
    ends = [event["key"] for event in await tx.events() if event["type"] in ("document.deleted", "session.deleted")]
    assert ends == ["note/s/0", "note/s/1", "note/s/2", "s"]


async def test_a_portion_of_a_session_is_bounded_by_bytes(tx: Transaction) -> None:
    await used(tx, "s")
    await tx.connection.execute("""
        insert into coordinator.entries (log_id, seq, epoch, actor, created_at, data)
        select l.id, n, l.epoch, 'a', now(), '"0123456789"' from coordinator.logs l, generate_series(2, 250) n where l.kind = 'note';
        update coordinator.logs set last_seq = 250, count = 250 where kind = 'note'""")
    portion = """
        select coordinator.session_remove(s.id, 'deleted', 'a', coordinator.now_utc(), p_bytes => 1000) from coordinator.sessions s where s.key = 's'"""
    left = []
    while not await tx.connection.fetchval(portion):
        left.append(
            await tx.connection.fetchval("select count from coordinator.logs where kind = 'note' and key = 's'")
        )
    assert left == [150, 50]
    assert await present(tx) == []
