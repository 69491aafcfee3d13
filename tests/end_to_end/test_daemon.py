"""The daemon as operators meet it: coming up, answering, saying what it does, going down."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from functools import partial
from urllib.parse import urlsplit

import anyio
import pytest

from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.loops.table import table
from coordinator.operations import signals
from tests.daemon import Daemon, drained, log_of, note, opened
from tests.faults.proxy import Proxy
from tests.forked import ROOT
from tests.generate.docs import declared_metrics
from tests.relay.load import Load
from tests.waiting import until

DOWN = ["daemon.stopping", "daemon.stopped"]


async def test_sigterm_drains_in_time_under_load_with_an_http_connection_open(database_url: str) -> None:
    load = Load(database_url)
    # It waits long for connections to end, so it must end them itself.
    leader = await (await Daemon(database_url, constants={"coordinator.api.server.DRAIN_S": 600}).ready()).lead()
    with leader as daemon, await Daemon(database_url).ready() as other:
        address = urlsplit(daemon.url)
        with (
            socket.create_connection((address.hostname, address.port)) as idle,
            socket.create_connection((address.hostname, address.port)) as half,
        ):
            idle.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(65536).startswith(b"HTTP/1.1 200")
            half.sendall(b"GET /livez HTTP/1.1\r\nHo")
            async with load.running(4):
                await drained(database_url, 1)
                daemon.send(signal.SIGTERM)
                assert await daemon.ended() == 0
                began = await other.heartbeats()
                handed_over = await other.heartbeats_until(other.is_leading, "the other one leads", since=began)
        await drained(database_url, len(load.committed))
        note("SIGTERM: another leads after, heartbeats", [handed_over])
        assert handed_over <= 2
        assert [event for event in daemon.events() if event in DOWN] == DOWN  # a loop may end its run between the two
        assert "Traceback" not in daemon.output()
    load.judge(await log_of(database_url))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_the_database_is_awaited_ends_the_daemon_at_once(number: signal.Signals) -> None:
    with Daemon("postgresql://nobody@127.0.0.1:1/nothing", connect_limit_s=600) as daemon:
        await until(lambda: len(daemon.lines("database.connect_failed")) >= 3, "it has tried three times")
        assert [line["retry_s"] for line in daemon.lines("database.connect_failed")][:3] == [0.1, 0.2, 0.4]
        daemon.send(number)
        assert await daemon.ended() == 0
        assert [event for event in daemon.events() if event in DOWN] == DOWN  # a loop may end its run between the two


async def test_a_database_that_cannot_be_reached_is_awaited_with_back_off_up_to_the_limit() -> None:
    with Daemon("postgresql://nobody:hunter2@127.0.0.1:1/nothing", connect_limit_s=0.5) as daemon:
        assert await daemon.ended() == 7
        pauses = [line["retry_s"] for line in daemon.lines("database.connect_failed")]
        assert pauses == [0.1, 0.2, 0.4][: len(pauses)]
        failed = daemon.lines("daemon.failed")[0]
        assert failed["error"] == "DatabaseUnavailable"
        assert "within 0.5 seconds" in failed["message"]
        assert "nobody@127.0.0.1:1/nothing" in failed["hint"]
        assert "hunter2" not in daemon.output()


async def test_a_port_that_is_taken_is_a_configuration_error_before_the_database_is_touched() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        Daemon("postgresql://nobody@127.0.0.1:1/nothing", port=taken.getsockname()[1]) as daemon,
    ):
        assert await daemon.ended() == 78
        assert daemon.events() == ["daemon.failed"]
        assert "--port" in daemon.lines()[0]["hint"]


async def test_a_daemon_that_may_only_verify_refuses_a_database_without_the_schema(empty_url: str) -> None:
    with Daemon(empty_url, schema="verify") as daemon:
        assert await daemon.ended() == 6
        failed = daemon.lines("daemon.failed")[0]
        assert (failed["error"], "schema apply" in failed["hint"]) == ("SchemaMismatch", True)
    async with opened(empty_url) as connection:
        assert await connection.fetchval("select to_regnamespace('coordinator')") is None


async def test_no_password_is_ever_in_the_log_and_every_line_is_json(database_url: str) -> None:
    secrets = ("hunter2", "hunter3")
    parts = urlsplit(database_url)
    user, _, host = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}:{secrets[0]}@{host}"
    url = parts._replace(netloc=netloc, query=f"{parts.query}&password={secrets[1]}".lstrip("&")).geturl()
    with Daemon(url, log_level="debug") as daemon:
        if parts.password is None:  # a server that asks for none takes any
            await daemon.ready()
            daemon.send(signal.SIGTERM)
        await daemon.ended()
        assert not [secret for secret in secrets if secret in daemon.output()]
        for line in daemon.lines():
            assert {"event", "level", "timestamp"} <= line.keys() or line["event"] == "daemon.failed"


def documented() -> dict[str, list[str]]:
    """Return the labels of each metric in docs/metrics.md."""
    rows = [row.split("|") for row in (ROOT / "docs/metrics.md").read_text().splitlines() if row.startswith("| `coord")]
    assert len(rows) > 5
    return {row[1].strip(" `"): row[3].replace("`", "").replace(",", "").split() for row in rows}


def test_the_table_of_metrics_is_what_the_code_has() -> None:
    assert documented() == {name: list(metric.labels) for name, metric in declared_metrics().items()}


async def test_a_daemon_answers_livez_readyz_and_every_documented_metric(database_url: str, config: Config) -> None:
    async with Database.open(database_url, config) as database:
        with Daemon(database_url) as daemon:
            await (await daemon.ready()).lead()
            await database.run(signals.Set(project="default", key="k", value=1))
            assert (await daemon.get("/livez")).json()["status"] == "alive"
            assert (await daemon.get("/nowhere")).status_code == 404
            answer = await daemon.get("/metrics")
            assert answer.headers.get_list("content-type") == ["text/plain; version=0.0.4; charset=utf-8"]
            families = {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")}
            assert families == set(documented())
            leads = partial(daemon.metric, "coordinator_leader")  # not while a heartbeat is late
            assert await until(leads, "the metrics say that it leads") == 1
            assert await daemon.metric('coordinator_call_seconds_count{function="leader_renew"}') >= 1


async def test_idle_daemons_make_at_most_two_queries_a_second_each(database_url: str, empty_url: str) -> None:
    """One alone, and two on another database: responses of the server, without those to loops."""
    loops = table(Config())
    # Runs a second without any work, of which a window has none or all.
    scheduled = sum(1 / loop.every_s for loop in loops)
    async with Proxy(database_url).serving() as one, Proxy(empty_url).serving() as two:
        with Daemon(one.url) as alone:
            first = await (await Daemon(two.url).ready()).lead()
            with first, await Daemon(two.url).ready() as second:
                for leader in (alone, first):

                    async def settled(leader: Daemon = leader) -> bool:
                        await leader.ready()
                        return all(await runs_of_loops(leader))

                    await until(settled, "every loop has run once", every_s=0.5)
                rates = await asyncio.gather(answers_of(one, alone), answers_of(two, first, second))
    note("queries a second: one idle daemon, each of two idle daemons", [a_second for a_second, _ in rates])
    assert all(a_second + scheduled <= 2 and a_heartbeat > 0.9 for a_second, a_heartbeat in rates), (
        rates,
        scheduled,
    )


# In seconds: two rounds of the relay, which looks every 10, and eight pings. A window has at most five answers more than the mean
# (three that a round of the relay asks, a ping, a heartbeat): a quarter of an answer a second, which the bound leaves.
HEARTBEATS = 20


async def answers_of(proxy: Proxy, *daemons: Daemon) -> tuple[float, float]:
    """Return the queries of each daemon without those of loops: the minimum in a second, and the maximum per heartbeat.

    Reading metrics takes time, in which more is asked. On a busy machine heartbeats are late, and what is repeated by time is not.
    """
    within = ends_at = 0.0

    async def heartbeats() -> int:
        return sum([await daemon.heartbeats() for daemon in daemons])

    async def enough() -> int:
        nonlocal within, ends_at
        within, ends_at = proxy.answers, time.monotonic()
        found = await heartbeats()
        return found if found >= before + HEARTBEATS * len(daemons) else 0

    first, ran = proxy.answers, await runs(*daemons)
    before = await heartbeats()
    second, began = proxy.answers, time.monotonic()
    await anyio.sleep(HEARTBEATS - 1)  # there cannot be enough yet, and looking takes a processor
    after = await until(enough, f"{HEARTBEATS} heartbeats of each have passed", every_s=0.5)
    ran = await runs(*daemons) - ran
    return (within - second - ran) / len(daemons) / (ends_at - began), (proxy.answers - first - ran) / (after - before)


async def runs(*daemons: Daemon) -> float:
    """Return how often the daemons have run a loop."""
    return sum([sum(await runs_of_loops(daemon)) for daemon in daemons])


async def runs_of_loops(daemon: Daemon) -> list[float]:
    metrics = await daemon.metrics()
    return [metrics[f'coordinator_loop_runs_total{{loop="{loop.name}"}}'] for loop in table(Config())]
