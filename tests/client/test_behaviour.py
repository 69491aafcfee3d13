"""One behaviour: on PostgreSQL, through a daemon, and through a sidecar on either; for the client and the program."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import msgspec
import pytest

import coordinator
from coordinator.client import Client, LeaseState, Listing, LockLost, lease
from coordinator.errors import (
    Conflict,
    CoordinatorError,
    DatabaseUnavailable,
    InvalidArgument,
    NotFound,
    WaitTimedOut,
)
from coordinator.model.log import NewEntry
from coordinator.model.operation import JsonText
from coordinator.model.page import cursor_of
from coordinator.operations import directives, events, locks, signals, tokens
from tests.cli.conftest import Program
from tests.daemon import Daemon
from tests.waiting import DEADLINE_S, LASTING_S, OFTEN, until

VALUES = [None, True, 0, -1.5, 2**53, "", 'é "\\\n\U0001f600', [], [[None, {}]], {"a": {"b": [1, "2", False]}}]
KEYS = ["a", "a/b/c", "/a//b/", "..", ".", "a/../b", "set", "a b+c%2Fd?e#f&g=h", "é/\U0001f600"]


async def test_a_conversation_is_appended_to_and_windowed(connect: Any) -> None:
    async with connect() as client:
        first = await client.messages.append("chat/7", "user", "What is the weather?", tokens=9, uid="a")
        assert (first.last_seq, first.appended) == (1, 1)
        call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}]}
        exact = JsonText(b'{"role": "tool",  "tool_call_id": "c", "content": "\\u0000 \\ud800"}')
        second = await client.messages.extend(
            "chat/7", call, exact, NewEntry({"role": "user", "content": "And?"}, tokens=5), expect=first
        )
        assert second.last_seq == 4
        with pytest.raises(Conflict):
            await client.messages.append("chat/7", "user", "Late.", expect=first)
        several = [{"role": "user", "content": "A list"}, NewEntry({"role": "user", "content": "has messages."})]
        assert (await client.messages.extend("chat/9", several, [], call)).last_seq == 3
        window = await client.messages.window("chat/7", last=2)
        assert [message.data["content"] for message in window] == ["And?"]
        window = await client.messages.window("chat/7", turns=2, tokens=1000, complete=True)
        assert [message.seq for message in window] == [1, 2, 3, 4]
        assert bytes(window[2].text) == bytes(exact)
        assert [message.needs async for message in client.messages.list("chat/7", limit=2)] == [None, None, 2, None]
        with pytest.raises(NotFound):
            await client.messages.window("chat/8", last=1)
        with pytest.raises(InvalidArgument):
            await client.messages.window("chat/7")
        await client.steps.append("chat/7", "Look first.", {"run": "ls"})
        await client.steps.append("chat/7", observation=["a.txt"])
        assert [step.data async for step in client.steps.list("chat/7")] == [
            {"thought": "Look first.", "action": {"run": "ls"}},
            {"observation": ["a.txt"]},
        ]
        with pytest.raises(InvalidArgument):
            await client.steps.append("chat/7")
        receipt = await client.observations.append("It is slow.")
        assert [one.data for one in await client.observations.list(receipt.key, last=1)] == ["It is slow."]


async def test_a_value_is_returned_unchanged(connect: Any) -> None:
    async with connect() as client:
        for value in VALUES:
            given = await client.signals.set("k", value)
            assert given == await client.signals.get("k")
            assert (given.value, type(given.value)) == (value, type(value))
            assert given.updated_at.tzinfo is UTC or given.updated_at.utcoffset() == timedelta(0)


async def test_a_key_is_taken_literally(connect: Any) -> None:
    async with connect() as client:
        for key in KEYS:
            try:
                version = (await client.signals.set(key, key)).version
            except InvalidArgument:
                with pytest.raises(InvalidArgument):
                    await client.signals.get(key)
                continue
            assert (await client.signals.get(key)).value == key
            assert [signal.key for signal in await client.signals.list(key)] == [key]
            assert await client.signals.delete(key) == version


async def test_signals_have_versions_ttl_prefixes_and_pages(connect: Any) -> None:
    async with connect() as client:
        first = await client.signals.set("build/state", 1, ttl=60)
        assert first.expires_at - first.updated_at == timedelta(seconds=60)
        second = await client.signals.set("build/state", 2, expect=first.version, critical=True)
        assert (second.version > first.version, second.expires_at) == (True, None)
        with pytest.raises(Conflict) as raised:
            await client.signals.set("build/state", 3, expect=first.version)
        assert json.loads(raised.value.detail or "")["version"] == second.version
        for number in range(5):
            await client.signals.set(f"page/{number}")
        page = await client.signals.list("page/", limit=3)
        rest = await client.signals.list("page/", after=page.cursor, limit=3)
        assert [signal.key for signal in page + rest] == [f"page/{number}" for number in range(5)]
        assert rest.cursor is None
        assert await client.signals.delete("build/state", expect=second.version) == second.version


async def test_every_list_is_read_in_pages_and_followed_whole(connect: Any, program: Program) -> None:
    """With ties at each border: incarnations of one name, holders of one resource, directives of one priority."""
    async with connect() as client:
        names = ["a", "twin", "twin", "twin", "twin", "twin"]
        ids = [(await client.agents.register(name, role="r", ttl=3600)).id for name in names]
        for number, agent in enumerate(ids):
            await client.locks.acquire("src/shared.py", agent=agent, shared=True, ttl=3600)
            await client.rules.set(f"R{number}", ["X"])
            await client.directives.send("x", to_role="r")
        lists: list[tuple[Callable[..., Listing[Any]], int]] = [
            (client.agents.list, 6),
            (client.locks.list, 6),
            (client.rules.list, 6),
            (client.directives.list, 6),
            (client.directives.pending, 12),
            (partial(client.directives.inbox, agent="a"), 6),
            (client.projects.list, 2),
        ]
        for ask, least in lists:
            whole = list(await ask())
            assert len(whole) >= least
            assert [row async for row in ask(limit=2)] == whole
            pages = await ask(limit=2)
            after = pages.cursor
            while after is not None:
                page = await ask(after=after, limit=2)
                pages += page
                after = page.cursor
            assert pages == whole
            for bad in ("x", "ä", "bm90IGpzb24", cursor_of(tokens.List, ["1"]), cursor_of(signals.List, ["a", "b"])):
                with pytest.raises(InvalidArgument) as raised:
                    await ask(after=bad)
                assert (raised.value.code, bool(raised.value.hint)) == ("ZC103", True)
        whole = list(await client.locks.list())
    assert program.json("lock", "list", "--limit", "4") == json.loads(msgspec.json.encode(whole[:4]))
    assert program.fails(5, "lock", "list", "--after", "x")["code"] == "ZC103"


async def test_errors_have_the_same_class_code_and_hint(connect: Any) -> None:
    async with connect("coder") as client:
        taken = await client.agents.register("guest")
        await client.signals.set("k")
        expected: list[tuple[Callable[[], Awaitable[object]], type[CoordinatorError], str]] = [
            (lambda: client.signals.get("nothing"), NotFound, "ZC2"),
            (lambda: client.signals.get(""), InvalidArgument, "ZC1"),
            (lambda: client.signals.set("k", expect=7), Conflict, "ZC301"),
            (lambda: client.signals.set("k", ttl=0), InvalidArgument, "ZC104"),
            (lambda: client.signals.set("k", "nul \0"), InvalidArgument, "22"),
            (lambda: client.signals.set("k", "half \ud800"), InvalidArgument, ""),
            (lambda: client.signals.set("k" * 2000), InvalidArgument, "ZC1"),
            (lambda: client.signals.list(limit=0), InvalidArgument, "ZC1"),
            (lambda: client.projects.show("nowhere"), NotFound, "ZC2"),
            (lambda: client.projects.create(client.project), Conflict, "ZC3"),
            (lambda: client.directives.send("x"), InvalidArgument, "ZC1"),
            (lambda: client.directives.acknowledge(10**9), NotFound, "ZC2"),
            (lambda: client.agents.heartbeat(UUID(int=7)), NotFound, "ZC202"),
            (lambda: client.events.emit("reserved.type"), InvalidArgument, "ZC1"),
            (lambda: client.events.since("yesterday"), InvalidArgument, "ZC103"),
            (lambda: client.events.since(topics=["%"]), InvalidArgument, "ZC1"),
            (lambda: client.locks.show("free"), NotFound, "ZC2"),
            (lambda: client.locks.acquire("../up"), InvalidArgument, "ZC1"),
            (lambda: client.locks.renew("free", tokens=[1]), Conflict, "ZC3"),
        ]
        for call, kind, code in expected:
            with pytest.raises(kind) as raised:
                await call()
            assert type(raised.value) is kind
            assert raised.value.code.startswith(code), raised.value.code
            assert raised.value.hint, raised.value
        await client.agents.deregister(taken.id)


async def test_directives_reach_agents_roles_and_everyone_and_are_acknowledged(connect: Any) -> None:
    async with connect("boss") as boss, connect("coder", role="developer") as coder:
        sent = await boss.directives.send("Stop.", to_agent="coder", ttl=timedelta(hours=1), data={"now": True})
        assert (sent.data, sent.expires_at - sent.sent_at) == ({"now": True}, timedelta(hours=1))
        await boss.directives.send("Read this.", to_role="developer", priority=5)
        await boss.directives.send("Hello.", everyone=True)
        assert [d.body for d in await coder.directives.inbox()] == ["Read this.", "Stop.", "Hello."]
        assert (await coder.directives.acknowledge(sent, "seen")).status == "seen"
        assert [(p.agent, p.status) for p in await boss.directives.pending(sent)] == [("coder", "seen")]
        assert (await coder.directives.acknowledge(sent, "refused", reason="no")).reason == "no"
        with pytest.raises(Conflict):
            await coder.directives.acknowledge(sent, "done")
        assert await boss.directives.revoke(sent.id, reason="over") is True
        assert len(await boss.directives.list()) == 2
        assert len(await boss.directives.list(open=False)) == 3


async def test_projects_and_rules_have_their_verbs(connect: Any) -> None:
    async with connect() as client:
        name = f"p{uuid4().hex[:12]}"
        created = await client.projects.create(name, description="A tree.")
        assert created in await client.projects.list()
        await client.projects.delete(name)
        rule = await client.rules.set("STALE", ["FRESH"])
        assert rule in await client.rules.list()
        await client.signals.set("a/FRESH")
        await client.signals.set("a/STALE")
        assert [s.key for s in await client.signals.list("a/")] == ["a/STALE"]
        await client.rules.delete("STALE")
        assert (await client.projects.show()).signal_count == 1


async def test_a_claim_waits_for_a_job(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.operations.waiting.POLL_S", 3600)
    claimed: list[UUID] = []

    async def claim(worker: Client) -> None:
        claimed.extend(grant.id for grant in await worker.jobs.claim(wait=DEADLINE_S))

    async with connect() as manager, connect("w", job_types=["x"], ttl=60) as worker:
        assert await worker.jobs.claim(wait=0.1) == []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(claim, worker)
            made = await manager.jobs.enqueue("x")
    assert claimed == [made.id]


async def test_a_job_goes_from_its_enqueue_to_its_end(connect: Any) -> None:
    async with connect() as manager, connect("w", job_types=["x"], labels=["gpu"], ttl=60) as worker:
        await manager.queues.set("builds", fair_by="key", ageing=60, weights={"acme": 2})
        made = await manager.jobs.enqueue("x", {"page": None}, queue="builds", key="acme", labels=["gpu"], backoff=1)
        assert (made.status, made.queue) == ("queued", "builds")
        (grant,) = await worker.jobs.claim(5, queues=["builds"])
        assert (grant.id, grant.payload, grant.key, grant.attempt) == (made.id, {"page": None}, "acme", 1)
        lease = await worker.jobs.progress(grant, 50, "half", checkpoint={"page": 3})
        assert (lease.fence, lease.cancel_at) == (grant.fence, None)
        assert await worker.jobs.reconcile([grant.fence]) == []
        assert (await worker.jobs.release(grant)).status == "queued"
        with pytest.raises(Conflict) as stale:
            await worker.jobs.complete(grant, 1)
        assert stale.value.code == "ZC320"
        (again,) = await worker.jobs.claim()
        assert (again.checkpoint, again.attempt) == ({"page": 3}, 1)
        assert again.fence > grant.fence
        assert (await worker.jobs.snooze(again, 3600)).status == "scheduled"
        assert (await manager.jobs.cancel(made, reason="over")).reason == "cancelled"
        two = await manager.jobs.enqueue_many([{"type": "x"}, {"type": "x", "payload": [1]}])
        first, second = await worker.jobs.claim(2)
        assert [first.id, second.id] == [job.id for job in two]
        assert (await worker.jobs.fail(first, "no page", final=True)).reason == "error"
        assert await worker.jobs.claim(finished=[(second, {"words": 812})]) == []
        (lost,) = await worker.jobs.claim(finished=[(grant, None)])
        assert (lost.id, lost.stale, lost.payload) == (made.id, True, None)


async def test_an_agent_is_registered_while_its_client_is_connected(connect: Any) -> None:
    async with connect() as other:
        async with connect(
            "coder", role="r", job_types=["build"], labels=["gpu"], metadata={"m": [1]}, ttl=60
        ) as client:
            (agent,) = await other.agents.list("r")
            assert (agent.id, agent.name, agent.ttl) == (client.agent.id, "coder", timedelta(seconds=60))
            assert (agent.job_types, agent.labels, agent.metadata) == (["build"], ["gpu"], {"m": [1]})
            assert client.agent.state is LeaseState.HELD
            assert (await client.signals.set("held", ephemeral=True)).actor == "coder"
        assert await other.agents.list() == []
        assert await other.signals.list() == []


async def test_an_agent_is_renewed_and_learns_that_it_was_reaped(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWALS_PER_TTL", OFTEN)
    async with connect() as other, connect("coder", ttl=LASTING_S) as client:
        ends: set[object] = set()
        with anyio.fail_after(DEADLINE_S):
            while len(ends) < 4:
                ends.add((await other.agents.list())[0].expires_at)
                await anyio.sleep(0.05)
        await other.agents.deregister(client.agent.id)
        with anyio.fail_after(DEADLINE_S):
            await client.agent.lost.wait()
        with pytest.raises(NotFound):
            await client.signals.set("k")


async def test_a_stream_returns_events_in_order_and_resumes_from_a_cursor(connect: Any) -> None:
    async with connect("coder") as client:
        after = await client.events.head()
        stream = client.events.stream(topics=["custom.*"], after=after)
        for number in range(10):
            await client.events.emit("custom.tick", key=str(number), data={"number": number})
            await client.signals.set("noise", number)
        got: list[int] = []
        with anyio.fail_after(DEADLINE_S):
            async for event in stream:
                assert (event.type, event.actor, event.project) == ("custom.tick", "coder", client.project)
                got.append(event.data["number"])
                if len(got) == 5:
                    break
            cursor = stream.cursor
            for again in (stream, client.events.stream(topics=["custom.*"], after=cursor)):
                rest = [(await anext(again)).data["number"] for _ in range(5)]
                assert got + rest == list(range(10))
        page = await client.events.since(after, topics=["signal.set"], limit=3)
        assert [event.data["value"] for event in page] == [0, 1, 2]


async def test_a_stream_wakes_at_once_for_an_event(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("events", "log_reader"):  # so that only a hint wakes it, here as in the daemon
        monkeypatch.setattr(f"coordinator.operations.{module}.POLL_S", 3600)
    async with connect() as client, connect() as writer:
        stream = client.events.stream(topics=["custom.*"], after=await client.events.head(), everywhere=True)
        for _ in range(5):
            await writer.events.emit("custom.tick")
            with anyio.fail_after(DEADLINE_S):
                while (await anext(stream)).project != client.project:
                    pass


async def test_a_stream_says_when_events_are_gone(connect: Any) -> None:
    async with connect() as client:
        with anyio.fail_after(DEADLINE_S):
            event = await anext(client.events.stream(after="00000000.5"))
        assert (event.type, event.data["reason"]) == ("reset", "restored")


async def test_a_held_lock_is_refused_with_the_name_of_its_holder(connect: Any) -> None:
    async with (
        connect("coder") as coder,
        connect("tester") as tester,
        coder.lock("src/app.py", "./docs/", ttl=30) as mine,
    ):
        assert mine.state is LeaseState.HELD
        with pytest.raises(Conflict, match='locked by agent "coder"') as raised:
            async with tester.lock("src/"):
                pytest.fail("entered")
        assert json.loads(raised.value.detail or "")["agent"] == "coder"
        (check,) = await tester.locks.check("src/app.py")
        assert (check.state, check.agent_id, check.fencing_token) == ("held", coder.agent.id, mine.token)
        assert [lock.resource for lock in await tester.locks.list(under="src/")] == ["src/app.py"]
        with pytest.raises(WaitTimedOut):
            await tester.locks.acquire("docs/a.md", wait=1)


async def test_a_released_lock_is_granted_to_its_waiter(connect: Any) -> None:
    async with connect("coder") as coder, connect("tester") as tester:
        (mine,) = await coder.locks.acquire("src/app.py", ttl=60)
        assert mine.fencing_token is not None

        async def hand_over() -> None:
            await until(lambda: coder.locks.waiting("src/app.py"), "the other one waits")
            await coder.locks.release("src/app.py", tokens=[mine.fencing_token or 0])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hand_over)
            with anyio.fail_after(DEADLINE_S):
                (grant,) = await tester.locks.acquire("src/app.py", wait=15)
        assert grant.fencing_token is not None
        assert grant.fencing_token > mine.fencing_token
        with pytest.raises(Conflict):
            await coder.locks.renew("src/app.py", tokens=[mine.fencing_token])
        assert await tester.locks.release("src/app.py", tokens=[grant.fencing_token]) == 1


async def test_a_broken_lock_is_lost_and_its_block_is_cancelled(connect: Any) -> None:
    async with connect("coder") as coder, connect("boss") as boss:

        async def work() -> None:
            async with coder.lock("name:deploy", ttl=60):
                assert await boss.locks.break_("name:deploy", "urgent") == 1
                await anyio.sleep(DEADLINE_S)
                pytest.fail("not cancelled")

        with pytest.raises(LockLost):
            await work()


async def test_a_server_that_does_not_answer_is_unavailable(url: str) -> None:
    away = "postgresql:///x?host=/nowhere" if url.startswith("postgresql") else "http://127.0.0.1:1"
    with pytest.raises(DatabaseUnavailable) as raised:
        async with coordinator.connect(away, agent="coder"):
            pytest.fail("entered")
    assert raised.value.hint


@pytest.fixture
def program(url: str, project: str, tmp_path: Path) -> Program:
    return Program(tmp_path, {"COORDINATOR_DATABASE_URL": url, "COORDINATOR_PROJECT": project})


def test_the_program_has_the_same_verbs_results_and_exit_codes(program: Program, project: str) -> None:
    agent = program.json("agent", "register", "coder", "--role", "r", "--ttl", "1h")
    assert [one["id"] for one in program.json("agent", "list")] == [agent["id"]]
    program.json("signal", "set", "a/../b", '{"n": [1, null]}', "--ttl", "1h")
    assert program.json("signal", "get", "a/../b")["value"] == {"n": [1, None]}
    sent = program.json("directive", "send", "Do it", "--to-agent", "coder")
    assert [one["id"] for one in program.json("directive", "inbox", "--agent", "coder")] == [sent["id"]]
    assert program.json("project", "show", project)["agent_count"] == 1
    assert program.fails(3, "signal", "get", "nothing")["code"].startswith("ZC2")
    assert program.fails(4, "signal", "set", "a/../b", "1", "--expect", "9")["code"] == "ZC301"
    assert program.fails(5, "signal", "set", "k", "1", "--ttl", "0s")["code"] == "ZC104"


async def test_the_program_follows_events(program: Program, connect: Any) -> None:
    tail = program.start("event", "tail", "--follow", "--limit", "3", "--topic", "custom.*")
    async with connect() as client:
        for number in range(3):
            await client.events.emit("custom.tick", key=str(number))
        text, _ = await anyio.to_thread.run_sync(tail.communicate, None, DEADLINE_S)
    assert tail.returncode == 0
    assert [json.loads(line)["key"] for line in text.splitlines()] == ["0", "1", "2"]


async def test_a_transaction_does_all_or_nothing_and_returns_what_each_write_returns(
    connect: Any, project: str
) -> None:
    def put(key: str, value: int, **fields: Any) -> signals.Set:
        return signals.Set(project=project, key=key, value=value, **fields)

    def at(key: str, version: int) -> signals.Assert:
        return signals.Assert(project=project, key=key, version=version)

    async with connect() as client:
        agent = await client.agents.register("holder")
        (grant,) = await client.locks.acquire("name:deploy", agent=agent.id)
        assert grant.fencing_token is not None
        signal, emitted, receipt, released = await client.transactions.run(
            put("k", 1, ttl=timedelta(minutes=1)),
            events.Emit(project=project, type="custom.x", data={"n": 1}),
            directives.Send(project=project, body="x", everyone=True, ttl=timedelta(hours=1)),
            locks.Release(project=project, resources=["name:deploy"], agent=agent.id, tokens=[grant.fencing_token]),
            conditions=[at("k", 0), locks.Assert(project=project, resource="name:deploy", token=grant.fencing_token)],
        )
        assert signal == await client.signals.get("k")
        assert (emitted, receipt.status, released) == (None, "open", 1)
        with pytest.raises(Conflict) as raised:  # the same again, as after a lost response
            await client.transactions.run(put("other", 1), put("k", 2), conditions=[at("k", 0)])
        assert msgspec.json.decode(raised.value.detail or "") == {"condition": 0, "version": signal.version}
        with pytest.raises(Conflict) as raised:
            await client.transactions.run(put("other", 1), put("k", 2, expect=0))
        assert msgspec.json.decode(raised.value.detail or "") == {"write": 1, "version": signal.version}
        assert [s.key for s in await client.signals.list()] == ["k"]


async def test_an_operation_that_cannot_be_part_of_a_transaction_is_refused(connect: Any, project: str) -> None:
    put = signals.Set(project=project, key="k", value=1)
    async with connect() as client:
        for parts, conditions in (
            ([put, signals.Get(project=project, key="k")], []),
            ([put, msgspec.structs.replace(put, project="default")], []),
            ([signals.Assert(project=project, key="k", version=0)], []),
            ([put], [put]),
            ([], []),
        ):
            with pytest.raises(InvalidArgument) as raised:
                await client.transactions.run(*parts, conditions=conditions)
            assert raised.value.hint
        assert await client.signals.list() == []


async def test_a_transaction_is_done_in_the_agents_name(connect: Any, project: str) -> None:
    async with connect("coder") as client:
        (signal,) = await client.transactions.run(signals.Set(project=project, key="k", value=1))
        assert signal.actor == "coder"


async def test_events_are_chosen_by_key_and_actor(connect: Any) -> None:
    async with connect("coder") as client, connect("tester") as other:
        after = await client.events.head()
        for key in ("task/1", "note", "task/2"):
            await client.events.emit("custom.x", key=key)
            await other.events.emit("custom.x", key=key)
        chosen = []
        with anyio.fail_after(DEADLINE_S):
            async for event in client.events.stream(keys=["task/*"], actors=["tester"], after=after):
                chosen.append((event.key, event.actor))
                if len(chosen) == 2:
                    break
        assert chosen == [("task/1", "tester"), ("task/2", "tester")]
        page = await client.events.since(after, keys=["no*"], actors=["coder", "tester"])
        assert [(event.key, event.actor) for event in page] == [("note", "coder"), ("note", "tester")]
        with pytest.raises(InvalidArgument):
            await client.events.since(after, keys=["x" * 513])


async def test_a_read_includes_what_another_interface_has_written(
    connect: Any, daemon: tuple[Daemon, str], project: str
) -> None:
    async with (
        connect() as writer,
        coordinator.connect(daemon[1], project=project) as on_database,
        coordinator.connect(daemon[0].url, project=project) as on_daemon,
    ):
        assert writer.position is None
        await writer.signals.list()
        assert writer.position is None
        start = await writer.events.head()
        for number in range(20):
            await writer.signals.set("k", number)
            reads = (on_database, on_daemon, writer)[number % 3].at_least(writer.position or "")
            assert (await reads.signals.get("k")).value == number
            page = await reads.events.since(start, keys=["k"])
            assert page[-1].data["value"] == number
            after_this = await reads.events.head()
            assert await writer.events.since(after_this) == []


async def test_a_stream_starts_behind_a_position(connect: Any) -> None:
    async with connect() as writer, connect() as reader:
        for number in range(5):
            await writer.events.emit("custom.x", key=f"before {number}")
            stream = reader.at_least(writer.position or "").events.stream(topics=["custom.*"])
            first = asyncio.ensure_future(anext(stream))
            with anyio.fail_after(DEADLINE_S):
                while not first.done():
                    await writer.events.emit("custom.x", key=f"after {number}")
            assert (await first).key == f"after {number}"


async def test_the_position_of_concurrent_writes_includes_all(connect: Any) -> None:
    async with connect() as writer, connect() as reader:
        for _ in range(3):
            after = await writer.events.head()
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(writer.signals.set, f"k{number}", number)
            page = await reader.at_least(writer.position or "").events.since(after, keys=["k*"])
            assert {event.key for event in page} >= {f"k{number}" for number in range(10)}
        await writer.signals.set("last", 1)
        assert "," not in (writer.position or ",")


async def test_a_position_that_no_read_will_include_is_refused_everywhere(connect: Any) -> None:
    async with connect() as client:
        for position, error in (("nonsense", InvalidArgument), ("0.x7", Conflict)):
            for read in (client.at_least(position).signals.get("k"), client.at_least(position).events.head()):
                with pytest.raises(error):
                    await read


def test_the_program_prints_positions_and_waits_for_them(program: Program) -> None:
    for number in range(2):
        position = program.run("signal", "set", "k", str(number), "--position").stdout.strip()
        assert program.json("signal", "get", "k", "--at-least", position)["value"] == number
        tail = program.run("event", "tail", "--topic", "signal.set", "--at-least", position)
        assert json.loads(tail.stdout.splitlines()[-1])["data"]["value"] == number
    assert program.fails(5, "signal", "get", "k", "--at-least", "nonsense")["code"] == "ZC103"
