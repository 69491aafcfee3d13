"""The network between the daemon and its database misbehaves."""

from __future__ import annotations

import signal
from contextlib import suppress

import anyio
import httpx
import pytest

from coordinator.db import session as session_module
from coordinator.db.database import Database
from coordinator.errors import DatabaseUnavailable
from coordinator.operations import events
from tests.daemon import Daemon, drained, log_of
from tests.faults.proxy import NOTIFICATION, Proxy
from tests.relay.load import Load
from tests.waiting import until


async def test_a_pooler_in_place_of_a_direct_connection_is_noticed_at_the_start(database_url: str) -> None:
    async with Proxy(database_url, swallow=NOTIFICATION).serving() as pooler:
        with Daemon(database_url, direct_url=pooler.url) as daemon:
            assert await daemon.ended() == 78
            failed = daemon.lines("daemon.failed")[0]
            assert failed["error"] == "ConfigurationError"
            assert "COORDINATOR_DIRECT_URL" in failed["hint"]
        with Daemon(pooler.url, direct_url=database_url) as daemon:  # this is what the hint says to do
            await daemon.ready()


@pytest.mark.long
async def test_a_network_outage_costs_only_time(database_url: str) -> None:
    load = Load(database_url)
    async with Proxy(database_url).serving() as network:
        with Daemon(network.url) as daemon:
            await (await daemon.ready()).lead()
            network.go_silent()

            async def unready() -> bool:
                return (await daemon.get("/readyz")).status_code == 503

            await until(unready, "/readyz answers 503", every_s=0.1)
            await load.run(2, 0.3)
            network.speak_again()
            await daemon.ready()
            await daemon.lead()
            await drained(database_url, len(load.committed))
    load.judge(await log_of(database_url))


async def test_a_session_whose_connection_the_driver_closed_reconnects_at_once(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a call began between the notice that the session is ended and its end: then no listener is notified."""
    monkeypatch.setattr(session_module, "PING_S", 3600)  # which would notice the loss too, but late
    async with db.session().kept() as session:
        assert session._link is not None
        session._link.connection._protocol.abort()
        assert session.connected, "nobody noticed yet"
        with pytest.raises(DatabaseUnavailable):
            await session.run(events.Head())

        async def answers() -> bool:
            with suppress(DatabaseUnavailable):
                return bool(await session.run(events.Head()))
            return False

        await until(answers, "the session is back")


ENDLESS = (
    "coordinator.daemon.LOOP_TIMEOUT_S",
    "coordinator.db.database.CALL_TIMEOUT_S",
    "coordinator.db.session.PING_TIMEOUT_S",
    "coordinator.loops.keeper.LEAD_S",
)
IN_ORDER = ("coordinator.db.database.CLOSE_S", "coordinator.api.server.DRAIN_S")


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_daemon_ends_in_time_if_the_database_does_not_respond(database_url: str, signals: int) -> None:
    """No call ends by its own time, nor does the shutdown, where the second signal has to end it."""
    constants = dict.fromkeys(ENDLESS, 3600.0)
    if signals == 2:
        constants |= dict.fromkeys(IN_ORDER, 3600.0)
    async with Proxy(database_url).serving() as network:
        with Daemon(network.url, constants=constants, call_timeout_s=600) as daemon:
            await (await daemon.ready()).lead()
            before = network.asked
            network.go_silent()

            async def call() -> None:
                """Call: the daemon's own next call may wait for the answer of one that is under way already."""
                with suppress(httpx.HTTPError):
                    await daemon.get("/v1/signals?project=default")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await until(lambda: network.asked > before, "a call is under way")
                daemon.send(signal.SIGTERM)
                await daemon.logged("daemon.stopping")
                if signals == 2:
                    daemon.send(signal.SIGTERM)
                    await daemon.logged("daemon.aborted")
                assert await daemon.ended() == 0
                tasks.cancel_scope.cancel()
