from __future__ import annotations

from datetime import timedelta

import pytest

import coordinator
from coordinator.client.caller import Caller
from coordinator.errors import ConfigurationError, Conflict, DatabaseUnavailable, InvalidArgument, NotFound
from coordinator.operations import signals


async def test_signals_are_set_read_listed_and_deleted(database_url: str) -> None:
    async with coordinator.connect(database_url) as client:
        first = await client.signals.set("build/state", {"ok": True}, ttl=60)
        assert first.expires_at is not None
        assert first.expires_at - first.updated_at == timedelta(seconds=60)
        assert (await client.signals.get("build/state")).value == {"ok": True}
        second = await client.signals.set("build/state", 2, expect=first.version, critical=True)
        assert second.expires_at is None
        with pytest.raises(Conflict):
            await client.signals.set("build/state", 3, expect=first.version)
        assert [s.key for s in await client.signals.list("build/")] == ["build/state"]
        assert await client.signals.delete("build/state", expect=second.version) == second.version
        with pytest.raises(NotFound):
            await client.signals.get("build/state")


async def test_an_agent_is_given_by_name_or_id(database_url: str) -> None:
    async with coordinator.connect(database_url) as client:
        made = await client.agents.register("coder-1", ttl=3600)
        assert await client.agents.find("coder-1") == made.id
        assert await client.agents.heartbeat("coder-1") > made.registered_at
        async with client.lock("src/", agent="coder-1") as held:
            assert held.handle.agent == made.id
            assert [lock.resource for lock in await client.locks.list(agent="coder-1")] == ["src/"]
        signal = await client.signals.set("k", 1, agent="coder-1", ephemeral=True)
        assert signal.agent_id == made.id
        sent = await client.directives.send("x", to_agent=made.id)
        assert [one.id for one in await client.directives.inbox(agent=made.id)] == [sent.id]
        assert (await client.directives.acknowledge(sent, agent=made.id)).agent == "coder-1"
        for call in (client.agents.heartbeat, client.agents.deregister, client.agents.find):
            with pytest.raises(NotFound, match='"coder-l"') as unknown:
                await call("coder-l")
            assert (unknown.value.hint or "").startswith('Did you mean "coder-1"?')
        await client.agents.deregister("coder-1")
        assert [one.end_reason async for one in client.agents.list(ended=True)] == ["deregistered"]
        with pytest.raises(NotFound, match="deregistered at"):
            await client.locks.acquire("x", agent="coder-1")


async def test_a_directive_goes_from_manager_to_agent_and_is_acknowledged(database_url: str) -> None:
    async with (
        coordinator.connect(database_url, agent="boss") as boss,
        coordinator.connect(database_url, agent="coder", role="developer") as coder,
    ):
        sent = await boss.directives.send("Stop.", to_agent="coder", ttl=timedelta(hours=1), data={"now": True})
        await boss.directives.send("Read this.", to_role="developer", priority=5)
        await boss.directives.send("Hello.", everyone=True)
        assert [d.body for d in await coder.directives.inbox()] == ["Read this.", "Stop.", "Hello."]
        assert await boss.directives.inbox() == []
        assert (await coder.directives.acknowledge(sent, "seen")).status == "seen"
        assert [(p.agent, p.status) for p in await boss.directives.pending(sent)] == [("coder", "seen")]
        assert (await coder.directives.acknowledge(sent)).status == "done"
        assert await boss.directives.pending(sent) == []
        assert sent.actor == "boss"
        assert await boss.directives.revoke(sent.id, reason="over")
        assert len(await boss.directives.list()) == 2


async def test_projects_rules_and_agents_have_their_verbs(database_url: str) -> None:
    async with coordinator.connect(database_url, project="tree") as client:
        with pytest.raises(NotFound):
            await client.projects.show()
        await client.projects.create("tree", description="A tree.")
        assert {p.project for p in await client.projects.list()} == {"default", "tree"}
        assert (await client.projects.set("tree", paths="caseless")).paths == "caseless"
        assert (await client.projects.show()).paths == "caseless"
        await client.rules.set("STALE", ["FRESH"])
        assert "STALE" in {rule.when_set for rule in await client.rules.list()}
        await client.signals.set("a/FRESH")
        await client.signals.set("a/STALE")
        assert [s.key for s in await client.signals.list("a/")] == ["a/STALE"]
        await client.rules.delete("STALE")
        agent = await client.agents.register("guest", role="visitor", ttl=600, job_types=["look"])
        assert await client.agents.heartbeat(agent.id) > agent.expires_at
        assert [a.name for a in await client.agents.list("visitor")] == ["guest"]
        assert (await client.projects.show()).agent_count == 1
        await client.agents.deregister(agent.id)
        await client.projects.delete("tree")


async def test_what_is_done_as_an_agent_is_recorded_under_its_name(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="coder") as client:
        assert (await client.signals.set("k")).actor == "coder"


async def test_the_callers_own_errors_pass_through_the_context(database_url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with coordinator.connect(database_url, agent="coder"):
            raise ZeroDivisionError
    with pytest.raises(SystemExit):
        async with coordinator.connect(database_url):
            raise SystemExit(3)
    with pytest.raises(InvalidArgument):
        async with coordinator.connect(database_url, agent="coder", ttl=0):
            pytest.fail("entered")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "", "mysql://x", "postgresql", "//["])
async def test_an_address_of_another_scheme_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        async with coordinator.connect(url):
            pytest.fail("entered")
    assert raised.value.hint


async def test_a_missing_database_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        async with coordinator.connect("postgresql:///x?host=/nowhere", agent="coder"):
            pytest.fail("entered")


async def test_calls_that_need_an_agent_are_refused_without_one(database_url: str) -> None:
    async with coordinator.connect(database_url) as client:
        for call in (
            client.directives.inbox(),
            client.signals.set("k", ephemeral=True),
            client.signals.set("k", ttl="x"),
        ):  # type: ignore[arg-type]
            with pytest.raises(InvalidArgument) as raised:
                await call
            assert raised.value.hint
        with pytest.raises(ConfigurationError):
            _ = client.agent


class Failing:
    """An executor that does not answer the first ``times`` calls."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.calls = 0

    async def run(self, operation: object) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise DatabaseUnavailable("away")
        return "answer"


async def test_reads_are_retried_and_writes_never_are() -> None:
    reads = Failing(times=2)
    assert await Caller(reads, "default", 10, None).run(signals.Get(project="default", key="k")) == "answer"  # type: ignore[arg-type]
    assert reads.calls == 3
    writes = Failing(times=1)
    with pytest.raises(DatabaseUnavailable):
        await Caller(writes, "default", 10, None).run(signals.Set(project="default", key="k", value=1))  # type: ignore[arg-type]
    assert writes.calls == 1


async def test_a_call_ends_in_its_time() -> None:
    with pytest.raises(DatabaseUnavailable, match="away"):
        await Caller(Failing(times=10**9), "default", 0.2, None).run(signals.Get(project="default", key="k"))  # type: ignore[arg-type]
