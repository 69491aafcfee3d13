"""Leaders that die, that are paused, and that wake when another leads."""

from __future__ import annotations

import signal

from tests.daemon import Daemon, drained, log_of, note, opened
from tests.relay.load import Load
from tests.waiting import until, until_true


async def pair(url: str) -> tuple[Daemon, Daemon]:
    """Two daemons, of which the first leads."""
    leader = await (await Daemon(url).ready()).lead()
    return leader, await Daemon(url).ready()


async def killed(leader: Daemon, url: str) -> None:
    """Kill the leader, and wait until the server has noticed."""
    async with opened(url) as connection:
        process = await connection.fetchval("select process_id from coordinator.leaders")
        leader.kill()
        await until_true(connection, "select not coordinator.process_alive($1)", process)


async def test_when_the_leader_is_killed_another_leads_within_two_heartbeats(database_url: str) -> None:
    took = []
    leader, follower = await pair(database_url)
    for _ in range(2):
        with leader:
            await killed(leader, database_url)
            began = await follower.heartbeats()
            took.append(await follower.heartbeats_until(follower.is_leading, "the other one leads", since=began))
        leader, follower = follower, await Daemon(database_url).ready()
    with leader, follower:
        pass
    note("leader killed: another leads after, heartbeats", took)
    assert min(took) <= 2, took
    assert max(took) <= 4, took


async def test_when_the_leader_is_paused_another_leads_and_no_harm_is_done_when_it_wakes(database_url: str) -> None:
    load = Load(database_url)
    leader, follower = await pair(database_url)
    with leader, follower:
        async with load.running(2, pace_s=0.02):
            await drained(database_url, 1)
            began = await follower.heartbeats()
            leader.send(signal.SIGSTOP)
            took = await follower.heartbeats_until(follower.is_leading, "the other one leads", since=began)
            # The relay of the new leader continues: what is committed now arrives, although the old one is still paused.
            await drained(database_url, len(load.committed))
            leader.send(signal.SIGCONT)
            await until(lambda: not leader.leads, "the one that was paused knows that it does not lead")
        await drained(database_url, len(load.committed))
        await leader.ready()

        async def agree() -> bool:
            """Each term has one leader, and the last one leads."""
            leads = [daemon.leads for daemon in (leader, follower)]
            taken = [line for daemon in (leader, follower) for line in daemon.lines("leader.changed") if line["leads"]]
            told = [bool(await daemon.metric("coordinator_leader")) for daemon in (leader, follower)]
            async with opened(database_url) as connection:
                term = await connection.fetchval("select term from coordinator.leaders")
            return sorted(leads) == [False, True] and told == leads and 2 <= term <= len(taken)

        await until(agree, "the two agree who leads")
    note("leader paused: another leads after, heartbeats", [took])
    assert took <= 7, took  # the lead expires after 5 seconds
    load.judge(await log_of(database_url))
