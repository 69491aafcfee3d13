from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import anyio
import httpx
import pytest

import coordinator
from coordinator import embedded
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.errors import InvalidArgument, NotFound, PermissionDenied, ServerBehind
from coordinator.model.token import new_secret
from coordinator.operations import agents, events, locks, projects, tokens
from coordinator.sidecar import main
from coordinator.sidecar.upstream import Upstream
from tests.api.sse import stream
from tests.daemon import Daemon, note, opened
from tests.faults.test_agents_lost import let_go, reaped_after, settled
from tests.http_client import http_client
from tests.sidecar.conftest import Sidecar, sidecar
from tests.waiting import DEADLINE_S, LASTING_S, OFTEN, until


async def acquire(client: coordinator.client.Client, agent: UUID, *resources: str, ttl: float = 2) -> int:
    grants = await client.locks.acquire(*resources, agent=agent, ttl=ttl)
    return grants[0].fencing_token or 0


async def test_it_registers_the_pods_agent_with_what_the_downward_api_tells(
    db: Database, database_url: str, labels: Path
) -> None:
    pod = {"POD_NAME": "shop-1", "POD_NAMESPACE": "agents", "COORDINATOR_POD_LABELS": str(labels)}
    with sidecar(database_url, "--role", "coder", "--job-type", "build", "--label", "gpu", **pod) as beside:
        await beside.started()
        (agent,) = await db.run(agents.List(project="default"))
        assert (agent.id, agent.name, agent.role) == (beside.agent, "shop-1", "coder")
        assert (agent.job_types, agent.labels) == (["build"], ["gpu"])
        assert agent.metadata == {
            "pod": "shop-1",
            "namespace": "agents",
            "labels": {"app": "shop", "tier": 'back"end'},
        }
        report = await beside.report()
        assert (report["agent"]["state"], report["connected"]) == ("HELD", True)


async def test_everything_works_through_it_and_is_done_in_the_agents_name(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with Daemon(database_url) as daemon, sidecar(database_url, "--agent", "coder", "--socket", str(path)) as beside:
        await daemon.ready()
        await beside.started()
        for url in (beside.url, f"unix://{path}"):
            async with coordinator.connect(url) as client:
                changes = client.events.stream(topics=["signal.set"], after=await client.events.head())
                assert (await client.signals.set("k", url)).actor == "coder"
                with anyio.fail_after(DEADLINE_S):
                    assert (await anext(changes)).data["value"] == url
        assert path.stat().st_mode & 0o777 == 0o660
        beside.process.send_signal(signal.SIGTERM)
        assert await beside.ended() == 0
        assert not path.exists()


async def test_it_keeps_at_most_three_connections(database_url: str) -> None:
    with sidecar(database_url, "--agent", "coder") as beside:
        await beside.started()
        async with (
            http_client(beside.url) as http,
            opened(database_url) as connection,
        ):
            counts: list[int] = []

            async def count() -> int:
                query = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
                return int(await connection.fetchval(f"{query} and backend_type = 'client backend'"))

            async def few() -> bool:
                return await count() <= 3

            async def load() -> None:
                for number in range(20):
                    answer = await http.post("/v1/signals/set", json={"key": f"k/{number}", "value": number})
                    assert answer.status_code == 200, answer.text

            async def watch() -> None:
                while True:
                    counts.append(await count())
                    await anyio.sleep(0.01)

            await until(few, "the connection of its start has ended at the server")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                async with anyio.create_task_group() as loads:
                    for _ in range(10):
                        loads.start_soon(load)
                tasks.cancel_scope.cancel()
            counts.append(await count())  # those that were needed stay open for a minute
    note("sidecar: most connections under load", [max(counts)])
    assert max(counts) == 3


async def test_it_renews_the_locks_of_its_agent_and_forgets_released_ones(db: Database, database_url: str) -> None:
    with sidecar(
        database_url, "--agent", "coder", constants={"coordinator.client.lease.RENEWALS_PER_TTL": OFTEN}
    ) as beside:
        await beside.started()
        async with coordinator.connect(beside.url) as client:
            token = await acquire(client, beside.agent, "src/a.py", "src/b.py", ttl=LASTING_S)
            ends: dict[str, set[object]] = {"src/a.py": set(), "src/b.py": set()}

            async def renewed() -> bool:
                for lock in await db.run(locks.List(project="default")):
                    ends[lock.resource].add(lock.expires_at)
                return all(len(one) > 3 for one in ends.values())

            await until(renewed, "the locks are renewed again and again", every_s=0.05)
            report = await beside.report()
            assert [(lock["resource"], lock["state"], lock["fencing_token"]) for lock in report["locks"]] == [
                ("src/a.py", "HELD", token),
                ("src/b.py", "HELD", token),
            ]
            await client.locks.release("./src/a.py", tokens=[token], agent=beside.agent)

            async def forgotten() -> bool:
                return [lock["resource"] for lock in (await beside.report())["locks"]] == ["src/b.py"]

            await until(forgotten, "the released lock is forgotten, however it was spelled", every_s=0.05)
            await client.locks.break_("src/b.py", "urgent")

            async def lost() -> bool:
                return [lock["state"] for lock in (await beside.report())["locks"]] == ["LOST"]

            await until(lost, "the broken lock is shown as lost", every_s=0.05)


async def test_sigterm_releases_everything(db: Database, database_url: str) -> None:
    with sidecar(database_url, "--agent", "coder", "--ttl", "10m") as beside:
        await beside.started()
        async with coordinator.connect(beside.url) as client:
            await acquire(client, beside.agent, "src/a.py", ttl=600)
        beside.process.send_signal(signal.SIGTERM)
        assert await beside.ended() == 0
    assert await db.run(agents.List(project="default")) == []
    assert await db.run(locks.List(project="default")) == []


async def test_kill_9_ends_its_agents_and_their_locks_within_two_heartbeats(db: Database, database_url: str) -> None:
    async def nothing_is_held() -> bool:
        return await db.run(locks.List(project="default")) == []

    await settled(database_url)
    took = []
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        for _ in range(2):
            with sidecar(database_url, "--agent", "coder", "--ttl", "10m") as beside:
                await beside.started()
                async with coordinator.connect(beside.url) as client:
                    await acquire(client, beside.agent, "src/a.py", ttl=600)
                    session = await client.agents.join("session", ttl=600)
                    await acquire(client, session.id, "src/b.py", ttl=600)
                beside.process.kill()
                await let_go(database_url, beside.agent)
                began = await daemon.heartbeats()
                took.append(await reaped_after(daemon, began, database_url, beside.agent))
            await until(nothing_is_held, "the locks of both agents have ended")
    note("sidecar killed: its agent is reaped after, heartbeats", took)
    assert min(took) <= 2, took


@pytest.mark.parametrize("way", ["pid", "attach"])
async def test_everything_is_released_when_the_agents_process_ends(db: Database, database_url: str, way: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        arguments = ("--pid", str(process.pid)) if way == "pid" else ()
        with sidecar(database_url, "--agent", "coder", "--ttl", "10m", *arguments) as beside:
            await beside.started()
            if way == "pid":
                assert len(await db.run(agents.List(project="default"))) == 1
                process.kill()
            else:
                url = beside.url + "/v1/sidecar/attach"
                with subprocess.Popen(["curl", "-sN", "-X", "POST", url], stdout=subprocess.PIPE) as attached:
                    assert attached.stdout
                    assert attached.stdout.readline() == b"event: attached\n"
                    assert (await beside.report())["attached"] == 1
                    attached.kill()
            assert await beside.ended() == 0
        process.kill()
    assert await db.run(agents.List(project="default")) == []


async def test_no_get_changes_anything_of_a_sidecar(database_url: str) -> None:
    """A browser sends a GET for any page. Those of operations run functions that only read: see the catalogue's tests."""
    with sidecar(database_url, "--agent", "coder") as beside:
        await beside.started()
        report = await beside.report()
        async with http_client(beside.url) as client:
            for method in ("GET", "HEAD", "OPTIONS"):
                assert (await client.request(method, "/v1/sidecar/attach")).status_code == 405
            assert (await client.post("/v1/sidecar")).status_code == 405
            foreign = {"sec-fetch-site": "cross-site"}
            assert (await client.post("/v1/sidecar/attach", headers=foreign)).status_code == 403
        assert await beside.report() == report


async def test_a_process_that_attaches_after_the_last_one_ended_is_another_agent(
    db: Database, database_url: str
) -> None:
    """A restarted container knows nothing of the locks of its predecessor, and would never release them."""
    with sidecar(database_url, "--agent", "coder", "--ttl", "10m") as beside:
        await beside.started()
        async with coordinator.connect(beside.url) as client:
            await acquire(client, beside.agent, "src/a.py", ttl=600)
        url = httpx.URL(beside.url)
        place = (url.host, url.port)
        request = b"POST /v1/sidecar/attach HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        with socket.create_connection(place, DEADLINE_S) as first:
            first.sendall(request)
            assert first.recv(1) == b"H"

        async def noticed() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return bool((await beside.report())["attached"] == 0)
            return True  # it has ended already

        await until(noticed, "the end of the first process is noticed")
        with contextlib.suppress(ConnectionError), socket.create_connection(place, DEADLINE_S) as second:
            second.sendall(request)
            assert await beside.ended() == 0
        assert await beside.ended() == 0
    assert await db.run(locks.List(project="default")) == []


async def test_states_are_unknown_while_the_database_is_down_and_known_again_afterwards(data_dir: Path) -> None:
    async with embedded.run(data_dir, settings={"fsync": "off"}) as server:
        dsn = server.dsn
        beside = await Sidecar(dsn, "--agent", "coder", "--ttl", "10m").started()
        async with coordinator.connect(beside.url) as client:
            await acquire(client, beside.agent, "long", ttl=600)
            await acquire(client, beside.agent, "short", ttl=2)
    try:

        async def states() -> tuple[str, dict[str, str]]:
            report = await beside.report()
            return report["agent"]["state"], {lock["resource"]: lock["state"] for lock in report["locks"]}

        async def unknown() -> bool:
            return await states() == ("UNKNOWN", {"long": "UNKNOWN", "short": "LOST"})

        await until(unknown, "the states are unknown", every_s=0.05)
        async with http_client() as http:
            answer = await http.get(beside.url + "/readyz")
            assert (answer.status_code, answer.json()["reason"]) == (503, "no answer from the database")
            assert (await http.get(beside.url + "/livez")).status_code == 200
        async with embedded.run(data_dir, settings={"fsync": "off"}) as server:
            assert server.dsn == dsn

            async def known() -> bool:
                return await states() == ("HELD", {"long": "HELD", "short": "LOST"})

            await until(known, "the states are known again", every_s=0.05)
            async with Database.open(dsn, Config(min_connections=1, max_connections=2)) as db:
                assert [a.id for a in await db.run(agents.List(project="default"))] == [beside.agent]
                assert "long" in [lock.resource for lock in await db.run(locks.List(project="default"))]
    finally:
        beside.close()


async def test_a_reaped_agent_is_shown_as_lost_and_not_registered_again(db: Database, database_url: str) -> None:
    with sidecar(database_url, "--agent", "coder", "--ttl", "1s") as beside:
        await beside.started()
        await db.run(agents.Deregister(agent=beside.agent))

        async def lost() -> bool:
            return bool((await beside.report())["agent"]["state"] == "LOST")

        await until(lost, "the agent is shown as lost", every_s=0.05)
        async with http_client() as http:
            answer = await http.get(beside.url + "/readyz")
        assert (answer.status_code, answer.json()["reason"]) == (503, "the agent was reaped")
        assert await db.run(agents.List(project="default")) == []


@pytest.mark.parametrize(
    ("known_in", "wanted"), [(None, "the request has no token"), ("nowhere", "token"), ("elsewhere", "elsewhere")]
)
async def test_a_sidecar_whose_token_is_refused_ends_at_once(
    db: Database, database_url: str, known_in: str | None, wanted: str
) -> None:
    made = new_secret()
    if known_in == "elsewhere":
        await db.run(projects.Create(project=known_in))
        await db.run(tokens.Create(name="e", role="agent", hash=made.hash, prefix=made.prefix, project=known_in))
    given = {"COORDINATOR_CONNECT_LIMIT_S": "600"} | ({"COORDINATOR_TOKEN": made.text} if known_in else {})
    with Daemon(database_url, access="tokens") as daemon:
        await daemon.ready()
        with sidecar(daemon.url, "--agent", "a", **given) as beside:
            assert await beside.ended() == 5
            assert wanted in beside.output()
            assert "Traceback" not in beside.output()


def test_a_sidecar_whose_start_takes_too_long_ends_with_what_the_daemon_said_and_not_with_its_silence() -> None:
    source = Upstream(None, "default")
    assert main._unstarted(source, 60).message == "no answer within 60 seconds"
    source.trouble = ServerBehind("the server is behind")
    assert main._unstarted(source, 60) is source.trouble


async def test_through_a_daemon_it_needs_no_connection_to_the_database(db: Database, database_url: str) -> None:
    secret = new_secret()
    await db.run(tokens.Create(name="pods", role="agent", hash=secret.hash, prefix=secret.prefix, project="default"))
    with Daemon(database_url, access="tokens") as daemon:
        await daemon.ready()
        with sidecar(daemon.url, "--agent", "coder", COORDINATOR_TOKEN=secret.text) as beside:
            await beside.started()
            assert secret.text not in beside.output()
            async with opened(database_url) as connection:
                kinds = await connection.fetch("select distinct kind from coordinator.processes")
                assert [row["kind"] for row in kinds] == ["daemon"]
            async with coordinator.connect(beside.url) as client, http_client(beside.url) as http:
                changes = client.events.stream(topics=["signal.set"], after=await client.events.head())
                signal_ = await client.signals.set("k", [1])
                assert signal_.actor == "coder"
                with anyio.fail_after(DEADLINE_S):
                    assert (await anext(changes)).data["value"] == [1]
                with pytest.raises(NotFound):
                    await client.signals.get("nothing")
                keyed = [
                    await http.post(
                        "/v1/signals/set", json={"key": "once", "value": 1}, headers={"idempotency-key": "a"}
                    )
                    for _ in range(2)
                ]
                assert keyed[0].status_code == 200
                assert keyed[0].json() == keyed[1].json()
                await acquire(client, beside.agent, "src/a.py", ttl=60)
            assert (await beside.report())["locks"][0]["state"] == "HELD"
            beside.process.send_signal(signal.SIGTERM)
            assert await beside.ended() == 0
        assert await db.run(agents.List(project="default")) == []


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        (("--agent", "a", "--listen", "0.0.0.0:0"), 78, "does not listen on 0.0.0.0"),
        (("--agent", "a", "--listen", "7421"), 78, "invalid address"),
        (("--agent", "a", "--listen", "none"), 78, "no address to listen on"),
        (("--agent", "a", "--socket", "/nowhere/s.sock"), 78, "cannot listen"),
        ((), 78, "has no name"),
        (("--agent", "a", "--project", "nowhere"), 3, "nowhere"),
        (("--agent", "a", "--pid", "999999999"), 78, "no process"),
    ],
)
async def test_a_failed_start_has_a_message_and_an_exit_code(
    database_url: str, arguments: tuple[str, ...], code: int, wanted: str
) -> None:
    with sidecar(database_url, *arguments) as beside:
        assert await beside.ended() == code
        assert wanted in beside.output()
        assert "Traceback" not in beside.output()


async def test_webhooks_are_managed_through_it_with_the_rights_of_its_token(db: Database, database_url: str) -> None:
    """The daemon that delivers says which networks are allowed, not the sidecar."""
    secrets = {role: new_secret() for role in ("agent", "manager")}
    for role, secret in secrets.items():
        create = tokens.Create(name=role, role=role, hash=secret.hash, prefix=secret.prefix, project="default")
        await db.run(create)
    with Daemon(database_url, access="tokens", webhook_networks="10.0.0.0/8") as daemon:
        await daemon.logged("daemon.started")
        for role, secret in secrets.items():
            with sidecar(daemon.url, "--agent", f"its-{role}", COORDINATOR_TOKEN=secret.text) as beside:
                await beside.started()
                async with coordinator.connect(beside.url) as client:
                    if role == "agent":
                        with pytest.raises(PermissionDenied):
                            await client.webhooks.add("https://10.0.0.1/hook", ["lock.broken"])
                        with pytest.raises(PermissionDenied):
                            await client.webhooks.list()
                        continue
                    with pytest.raises(InvalidArgument, match=r"127\.0\.0\.1"):
                        await client.webhooks.add("http://127.0.0.1/hook", ["lock.broken"])
                    added = await client.webhooks.add("https://10.0.0.1/hook", ["lock.broken"])
                    assert added.secret.startswith("whsec_")
                    assert (await client.webhooks.pause(added.webhook)).paused_by == "its-manager"
                    (shown,) = await client.webhooks.list()
                    assert (shown.webhook, shown.actor) == (added.webhook, "its-manager")
                    assert await client.webhooks.remove(added.webhook)


async def test_through_a_daemon_with_a_token_of_one_project_its_streams_have_every_event_once_and_in_order(
    db: Database, database_url: str
) -> None:
    """The events of other projects leave gaps in the numbers that such a sidecar sees."""
    secret = new_secret()
    await db.run(projects.Create(project="other"))
    await db.run(tokens.Create(name="pod", role="agent", hash=secret.hash, prefix=secret.prefix, project="default"))

    async def emit(first: int) -> None:
        for number in range(first, first + 10):
            for project in ("other", "default", "other"):
                await db.run(events.Emit(project=project, type="custom.tick", data={"number": number}))

    with Daemon(database_url, access="tokens") as daemon:
        await daemon.ready()
        await emit(0)
        with sidecar(daemon.url, "--agent", "coder", COORDINATOR_TOKEN=secret.text) as beside:
            await beside.started()
            async with http_client(beside.url) as http:
                async with stream(http, topic="custom.*", after="start") as frames:
                    await emit(10)
                    found = await frames.events(20)
                    await emit(20)
                    found += await frames.events(10)
                assert [frame.data["data"]["number"] for frame in found] == list(range(30))
                for place in (0, 5, 14, 28):
                    async with stream(http, topic="custom.*", after=found[place].id) as frames:
                        rest = await frames.events(29 - place)
                    assert [frame.id for frame in rest] == [frame.id for frame in found[place + 1 :]]


async def test_with_tokens_it_refuses_other_processes_on_the_machine(db: Database, database_url: str) -> None:
    secret = new_secret()
    await db.run(tokens.Create(name="pod", role="reader", hash=secret.hash, prefix=secret.prefix, project="default"))
    with sidecar(database_url, "--agent", "coder", COORDINATOR_ACCESS="tokens") as beside:
        await beside.started()
        async with http_client(beside.url) as http:
            for method, path in (("GET", "/v1/sidecar"), ("POST", "/v1/sidecar/attach"), ("GET", "/v1/signals")):
                assert (await http.request(method, path)).status_code == 401
            http.headers["authorization"] = f"Bearer {secret.text}"
            assert (await http.get("/v1/sidecar")).json()["agent"]["name"] == "coder"
            assert (await http.get("/v1/signals")).status_code == 200
            assert (await http.post("/v1/sidecar")).status_code == 405


# A check is believed for a second. With this, it is believed for longer than any test, so that only a notification can help.
BELIEVING = {"coordinator.api.tokens.BELIEVED_S": 3600.0}


async def test_a_revoked_token_opens_nothing_more_at_once(db: Database, database_url: str) -> None:
    """Both if the sidecar checks tokens and if it uses one of a daemon."""
    secret = new_secret()
    create = tokens.Create(name="pod", role="agent", hash=secret.hash, prefix=secret.prefix, project="default")
    token = await db.run(create)
    with Daemon(database_url, access="tokens", constants=BELIEVING) as daemon:
        await daemon.ready()
        with (
            sidecar(database_url, "--agent", "a", constants=BELIEVING, COORDINATOR_ACCESS="tokens") as direct,
            sidecar(daemon.url, "--agent", "b", constants=BELIEVING, COORDINATOR_TOKEN=secret.text) as through,
        ):
            await direct.started()
            await through.started()
            header = {"Authorization": f"Bearer {secret.text}"}
            async with (
                http_client(direct.url, headers=header) as one,
                http_client(through.url) as other,
                stream(one, project="default") as frames,
            ):
                await frames.until("ready")
                for client in (one, other):
                    assert (await client.get("/v1/signals")).status_code == 200  # and the token is remembered
                await db.run(tokens.Revoke(token=token.id))
                began = time.monotonic()
                for client in (one, other):

                    async def refused(client: httpx.AsyncClient = client) -> bool:
                        return (await client.get("/v1/signals")).status_code == 401

                    await until(refused, "the token is refused")
                    note("sidecar: a revoked token is refused after ms", [(time.monotonic() - began) * 1000])
                assert (await frames.until("bye"))[-1].data["reason"].startswith("revoked")
