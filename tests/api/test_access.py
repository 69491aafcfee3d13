"""Who gets in over HTTP, and how far: a daemon that asks for tokens, as each role that there is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, get_args
from uuid import UUID, uuid4

import anyio
import httpx
import msgspec
import pytest

from coordinator.api.access import is_open
from coordinator.api.endpoint import endpoints
from coordinator.api.tokens import Tokens
from coordinator.client.wire import message_of
from coordinator.config import Config
from coordinator.db.connection import connect
from coordinator.db.database import Database
from coordinator.errors import ConfigurationError, Conflict, PermissionDenied, Unauthenticated
from coordinator.model.agent_ref import AgentRef, takes_agent
from coordinator.model.operation import Json, Operation, Scope, Shape
from coordinator.model.token import Role, Secret, Token, new_secret
from coordinator.operations import (
    agents,
    crons,
    events,
    positions,
    projects,
    signals,
    tokens,
)
from tests.api.test_problems import problem
from tests.conftest import admin, with_database
from tests.daemon import Daemon, opened
from tests.http_client import http_client
from tests.nouns import Known
from tests.populated import populate
from tests.samples import sample
from tests.waiting import DEADLINE_S, until

EVERYWHERE = "0.0.0.0"  # noqa: S104 - an address to be refused
ENDPOINTS = {endpoint.operation.function: endpoint for endpoint in endpoints()}
HOUR = timedelta(hours=1)


# Nothing polls: only a notification can end a wait.
CONSTANTS = {"coordinator.api.calls.POLL_S": 3600, "coordinator.api.subscriptions.POLL_S": 3600}


@pytest.fixture(scope="session")
def guarded_url(server_url: str, template: str) -> Iterator[str]:
    name = f"guarded_{uuid4().hex[:8]}"
    asyncio.run(admin(server_url, f"create database {name} template {template}"))
    url = with_database(server_url, name)
    asyncio.run(admin(url, "select coordinator.project_create(p) from unnest('{alpha,beta}'::text[]) p"))
    yield url
    asyncio.run(admin(server_url, f"drop database {name} with (force)"))


@pytest.fixture(scope="session")
def guarded(guarded_url: str) -> Iterator[Daemon]:
    """A daemon that asks for tokens."""
    with Daemon(guarded_url, access="tokens", constants=CONSTANTS) as process:
        asyncio.run(process.ready())
        yield process


class Issuer:
    """Makes tokens, and clients that present them."""

    def __init__(self, database: Database, url: str) -> None:
        self.database = database
        self.url = url

    async def token(self, role: str, project: str | None = None, ttl: timedelta = HOUR) -> tuple[Token, Secret]:
        secret = new_secret()
        operation = tokens.Create(
            name=f"the {role}", role=role, project=project, hash=secret.hash, prefix=secret.prefix, ttl=ttl
        )
        return await self.database.run(operation), secret

    def client(self, secret: Secret | None, **headers: str) -> httpx.AsyncClient:
        given = headers if secret is None else {"Authorization": f"Bearer {secret.text}", **headers}
        return http_client(self.url, headers=given)

    async def as_(self, role: str, project: str | None = None) -> httpx.AsyncClient:
        return self.client((await self.token(role, project))[1])


@pytest.fixture
async def issuer(guarded: Daemon, guarded_url: str) -> AsyncIterator[Issuer]:
    async with Database.open(guarded_url, Config(min_connections=1, max_connections=2)) as database:
        yield Issuer(database, guarded.url)


async def ask(client: httpx.AsyncClient, function: str) -> httpx.Response:
    """Call an endpoint without any parameters: enough to learn whether one is let in."""
    endpoint = ENDPOINTS[function]
    path = endpoint.path.partition("{")[0] + ("x" if endpoint.parameter else "")
    return await client.request(endpoint.method, path, json={} if endpoint.method == "POST" else None)


async def test_without_a_valid_token_nothing_below_v1_is_open(issuer: Issuer) -> None:
    async with issuer.client(None) as client:
        for function in ENDPOINTS:
            answer = await ask(client, function)
            problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == 'Bearer realm="coordinator"'
        problem(await client.get("/v1/events/stream"), 401, "unauthenticated")
        assert (await client.get("/livez")).status_code == 200
        for header in (f"Bearer {new_secret().text}", "Bearer coo_short", "Basic Y29vOmNvbw==", "Bearer", "coo_"):
            answer = await client.get("/v1/projects", headers={"Authorization": header})
            problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == 'Bearer realm="coordinator", error="invalid_token"'


async def test_who_is_refused_has_a_line_in_the_log(guarded: Daemon, issuer: Issuer) -> None:
    headers = {"x-request-id": uuid4().hex}
    async with issuer.client(None) as nobody, await issuer.as_("reader", "alpha") as reader:
        problem(await nobody.get("/v1/projects", headers=headers), 401, "unauthenticated")
        body = {"project": "beta", "key": "k", "value": 1}
        problem(await reader.post("/v1/signals/set", json=body, headers=headers), 403, "permission-denied")

    async def look() -> list[dict[str, Any]] | None:
        found = [line for line in guarded.lines("request.refused") if line["request_id"] == headers["x-request-id"]]
        return found if len(found) == 2 else None

    unknown, forbidden = await until(look, "the log has both")
    assert (unknown["code"], unknown["address"]) == (Unauthenticated.sqlstate, "127.0.0.1")
    assert (forbidden["code"], forbidden["address"]) == (PermissionDenied.sqlstate, "127.0.0.1")
    assert "the reader" in forbidden["error"]


async def test_a_request_with_two_tokens_is_refused(issuer: Issuer) -> None:
    _, secret = await issuer.token("admin")
    async with issuer.client(None) as client:
        header = ("Authorization", f"Bearer {secret.text}")
        problem(await client.get("/v1/projects", headers=[header, header]), 401, "unauthenticated")


async def test_a_token_in_the_address_is_ignored(issuer: Issuer) -> None:
    _, secret = await issuer.token("admin")
    async with issuer.client(None) as client:
        problem(await client.get("/v1/projects", params={"access_token": secret.text}), 401, "unauthenticated")


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name)
async def test_a_role_gets_as_far_as_the_table_says_on_every_endpoint(issuer: Issuer, role: Role) -> None:
    async with await issuer.as_(role.name) as client:
        for function, endpoint in ENDPOINTS.items():
            answer = await ask(client, function)
            needed = endpoint.operation.least_role()
            if role < needed:
                found = problem(answer, 403, "permission-denied")
                assert needed.name in found["hint"]
                assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
            else:
                assert answer.status_code not in (401, 403, 500), (function, answer.text)


CALLS = [
    ("GET", "/v1/signals?project={p}", None),
    ("POST", "/v1/signals/set", {"project": "{p}", "key": "k", "value": 1}),
    ("GET", "/v1/signals/k?project={p}", None),
    ("POST", "/v1/signals/delete", {"project": "{p}", "key": "k"}),
    ("POST", "/v1/agents/register", {"project": "{p}", "name": "a"}),
    ("GET", "/v1/agents?project={p}", None),
    ("GET", "/v1/directives?project={p}", None),
    ("GET", "/v1/directives/inbox?project={p}&agent=a", None),
    ("POST", "/v1/directives/send", {"project": "{p}", "body": "x", "everyone": True}),
    ("POST", "/v1/rules/set", {"project": "{p}", "when_set": "A", "clears": ["B"]}),
    ("GET", "/v1/rules?project={p}", None),
    ("GET", "/v1/events?project={p}", None),
    ("GET", "/v1/projects/{p}", None),
]


async def test_a_token_of_one_project_opens_it_and_no_other(issuer: Issuer) -> None:
    async with await issuer.as_("manager", "alpha") as client:
        for method, path, body in CALLS:
            for project, opens in (("alpha", True), ("beta", False), ("nowhere", False)):
                content = json.loads(json.dumps(body).replace("{p}", project))
                answer = await client.request(method, path.format(p=project), json=content)
                if opens:
                    assert answer.status_code == 200, (path, answer.text)
                else:
                    problem(answer, 403, "permission-denied")
        # Nothing is said of a project: then it concerns all of them, or the project default.
        for path in ("/v1/events", "/v1/events/stream", "/v1/signals"):
            problem(await client.get(path), 403, "permission-denied")
        problem(await client.get("/v1/events/stream?project=alpha&project=beta"), 403, "permission-denied")
        everywhere = {"project": "alpha", "when_set": "A", "clears": ["B"], "everywhere": True}
        problem(await client.post("/v1/rules/set", json=everywhere), 403, "permission-denied")
        assert (await client.get("/v1/events/head")).status_code == 200


async def run(client: httpx.AsyncClient, operation: Operation[Any]) -> httpx.Response:
    message = message_of(operation)
    headers = {"Content-Type": "application/json"}
    return await client.request(message.method, message.path, content=message.content, headers=headers)


async def test_no_operation_reaches_the_project_of_others(issuer: Issuer) -> None:
    """Each as the least role that may call it, a manager at most."""
    async with AsyncExitStack() as stack:
        every = await stack.enter_async_context(await issuer.as_("agent"))
        by_role = {
            role: await stack.enter_async_context(await issuer.as_(role.name, "alpha"))
            for role in (Role.reader, Role.agent, Role.manager)
        }
        foreign = UUID((await run(every, agents.Register(project="beta", name="b"))).json()["id"])
        for function, endpoint in ENDPOINTS.items():
            kind = endpoint.operation
            own = by_role[min(kind.least_role() or Role.manager, Role.manager)]
            open_ = kind.scope in (Scope.NONE, Scope.OWN_ROWS)
            aims: list[dict[str, Any]] = [{}]
            if kind is positions.Included:
                aims = [{"position": (await run(own, events.Head())).json()["result"]}]
            elif kind is crons.Preview:
                aims = [{"schedule": "@daily"}]
            elif kind.scope is Scope.AGENT:
                aims = [{"agent": foreign}]
            elif "project" in kind.__struct_fields__:
                others = {field.name: foreign for field in msgspec.structs.fields(kind) if takes_agent(field.type)}
                optional = not next(f for f in msgspec.structs.fields(kind) if f.name == "project").required
                aims = [{"project": name, **others} for name in ("beta", "nowhere", *([None] if optional else []))]
            for aim in aims:
                answer = await run(own, sample(kind, **aim))
                if open_:
                    assert answer.status_code == 200, (function, answer.text)
                else:
                    problem(answer, 403, "permission-denied")


async def test_no_operation_reaches_what_is_in_another_project_by_its_id(issuer: Issuer, guarded_url: str) -> None:
    mine, other = f"mine-{uuid4().hex[:8]}", f"other-{uuid4().hex[:8]}"
    for project in (mine, other):
        await issuer.database.run(projects.Create(project=project))
    async with await issuer.as_("manager") as every, await issuer.as_("manager", mine) as own:
        ids: dict[str, Known] = {}
        connection = await connect(guarded_url)
        try:
            for project in (mine, other):
                known = ids[project] = await populate(connection, project)
                known |= dict.fromkeys(("tree", "parent", "to_job"), known["job"])
                known |= {"after": [known["job"]], "children": [known["job"]]}
        finally:
            await connection.close()

        async def happened() -> list[str]:
            """All that happened in the other project, up to a mark that shows that the relay has sent everything."""
            mark = uuid4().hex
            await run(every, events.Emit(project=other, type="custom.mark", key=mark))

            async def told() -> list[dict[str, Any]]:
                found = (await every.get(f"/v1/events?project={other}&after=start&limit=10000")).json()["items"]
                return found if any(event["key"] == mark for event in found) else []

            return [event["cursor"] for event in await until(told) if event["type"] != "custom.mark"]

        before = await happened()
        for function, endpoint in ENDPOINTS.items():
            kind = endpoint.operation
            if kind.scope is not Scope.IN_PROJECT or kind.reads or kind.least_role() > Role.manager:
                continue
            for field in msgspec.structs.fields(kind):
                types = {field.type, *get_args(field.type)}
                # A token of a lock or a version refers to nothing alone; a request id is the caller's own; finished jobs of others
                # are answered as stale.
                named = ((UUID in types or AgentRef in types) and field.name not in ("request_id", "finished")) or (
                    field.required and field.type is int and field.name not in ("slots", "amount", "number")
                )
                if not named:
                    continue
                known = {name: value for name, value in ids[mine].items() if name in kind.__struct_fields__}
                if function == "job_suspend":
                    del known["after"]  # a cursor
                if function != "limit_set":
                    known.pop("tree", None)  # whether all of it
                given = {"slots": 1} if function == "limit_set" else {}
                aim = {"project": mine, **given, **known, field.name: ids[other][field.name]}
                answer = await run(own, sample(kind, **aim))
                assert answer.status_code in (404, 408, 409) or answer.json() == {"result": False}, (
                    function,
                    answer.text,
                )
        assert await happened() == before


async def test_an_agents_token_registers_no_agent_under_the_name_of_another_token(issuer: Issuer) -> None:
    lead, _ = await issuer.token("manager", "alpha")
    async with await issuer.as_("agent", "alpha") as client:
        refused = await run(client, agents.Register(project="alpha", name=lead.name))
        assert lead.name in problem(refused, 403, "permission-denied")["detail"]
        assert (await run(client, agents.Register(project="alpha", name=f"not-{lead.name[:20]}"))).status_code == 200


async def test_a_token_of_one_project_finds_it_among_the_projects_and_no_other(issuer: Issuer) -> None:
    async with await issuer.as_("reader") as every, await issuer.as_("reader", "alpha") as own:
        all_ = (await every.get("/v1/projects")).json()["items"]
        assert {"alpha", "beta", "default"} <= {project["project"] for project in all_}
        assert (await own.get("/v1/projects")).json()["items"] == [one for one in all_ if one["project"] == "alpha"]


def test_only_lists_are_confined_to_what_a_token_may_see() -> None:
    confined = [endpoint for endpoint in ENDPOINTS.values() if endpoint.operation.scope is Scope.OWN_ROWS]
    assert confined
    for endpoint in confined:
        assert endpoint.operation.reads
        assert endpoint.shape is Shape.MANY
        assert endpoint.operation.confine is not Operation.confine


async def test_an_agent_is_of_a_project_even_where_a_call_does_not_name_it(issuer: Issuer) -> None:
    async with await issuer.as_("agent") as every, await issuer.as_("agent", "alpha") as own:
        ids = {}
        for project in ("alpha", "beta"):
            answer = await every.post("/v1/agents/register", json={"project": project, "name": "a"})
            ids[project] = answer.json()["id"]
        for verb in ("heartbeat", "deregister"):
            problem(await own.post(f"/v1/agents/{verb}", json={"agent": ids["beta"]}), 403, "permission-denied")
            assert (await own.post(f"/v1/agents/{verb}", json={"agent": ids["alpha"]})).status_code == 200
        assert (await every.post("/v1/agents/heartbeat", json={"agent": ids["beta"]})).status_code == 200
        problem(await own.post("/v1/agents/heartbeat", json={"agent": str(uuid4())}), 404, "not-found")


async def test_a_token_acts_in_its_own_name(issuer: Issuer) -> None:
    async with await issuer.as_("agent") as client:
        set_ = {"project": "alpha", "key": "by", "value": 1}
        assert (await client.post("/v1/signals/set", json=set_)).json()["actor"] == "the agent"
        named = await client.post("/v1/signals/set", json=set_ | {"actor": "the agent"})
        assert named.json()["actor"] == "the agent"
        coder = await client.post("/v1/agents/register", json={"project": "alpha", "name": "coder"})
        owned = await client.post("/v1/signals/set", json=set_ | {"agent": coder.json()["id"]})
        assert owned.json()["actor"] == "the agent"


async def test_an_agents_token_may_only_name_agents_of_its_project(issuer: Issuer) -> None:
    async with await issuer.as_("agent") as client, await issuer.as_("manager") as manager:
        for name, project in (("coder-1", "alpha"), ("coder-2", "beta")):
            registered = await client.post("/v1/agents/register", json={"project": project, "name": name})
            assert registered.status_code == 200
        sent = await manager.post("/v1/directives/send", json={"project": "alpha", "body": "x", "everyone": True})
        writes: list[tuple[str, dict[str, Any], str]] = [
            ("signals/set", {"key": "by", "value": 1}, "actor"),
            ("signals/delete", {"key": "by"}, "actor"),
            ("events/emit", {"type": "custom.x"}, "actor"),
            ("directives/acknowledge", {"directive": sent.json()["id"]}, "agent"),
        ]
        for path, body, field in writes:
            for name in ("the manager", "coder-2", "coordinator"):
                refused = await client.post(f"/v1/{path}", json=body | {"project": "alpha", field: name})
                assert "may not speak" in problem(refused, 403, "permission-denied")["detail"]
            answer = await client.post(f"/v1/{path}", json=body | {"project": "alpha", field: "coder-1"})
            assert answer.status_code == 200, answer.text
            if path == "signals/set":
                assert answer.json()["actor"] == "coder-1"


async def test_no_agent_takes_the_name_of_a_token_and_no_manager_that_of_an_agent(issuer: Issuer) -> None:
    async with await issuer.as_("agent", "alpha") as client, await issuer.as_("manager") as manager:
        for name in ("the manager", "coordinator"):
            refused = await client.post("/v1/agents/register", json={"project": "alpha", "name": name})
            problem(refused, 403, "permission-denied")
        agent = {"project": "alpha", "name": "the agent", "ttl": "1h"}  # once reaped, it would be refused elsewhere
        assert (await client.post("/v1/agents/register", json=agent)).status_code == 200
        # A manager may register an agent of its own name. That is no reason for an agent's token to speak in it.
        managers = {"project": "alpha", "name": "the manager", "ttl": "1h"}
        assert (await manager.post("/v1/agents/register", json=managers)).status_code == 200
        spoken = {"project": "alpha", "key": "k", "value": 1, "actor": "the manager"}
        problem(await client.post("/v1/signals/set", json=spoken), 403, "permission-denied")
        await issuer.token("manager")  # a token's successor may have its name
    secret = new_secret()
    named = tokens.Create(name="the agent", role="manager", hash=secret.hash, prefix=secret.prefix)
    with pytest.raises(Conflict, match="is registered"):
        await issuer.database.run(named)


async def test_an_idempotency_key_is_of_one_caller(issuer: Issuer) -> None:
    async with await issuer.as_("agent", "alpha") as one, await issuer.as_("agent", "alpha") as other:
        key = {"Idempotency-Key": uuid4().hex}
        bodies = [{"project": "alpha", "key": "own", "value": value} for value in (1, 2)]
        first = await one.post("/v1/signals/set", json=bodies[0], headers=key)
        second = await other.post("/v1/signals/set", json=bodies[1], headers=key)
        assert (first.json()["value"], second.json()["value"]) == (1, 2)
        again = await one.post("/v1/signals/set", json=bodies[0], headers=key)
        assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")


async def test_a_manager_may_name_anyone_except_the_loops(issuer: Issuer) -> None:
    async with await issuer.as_("manager") as client:
        set_ = {"project": "alpha", "key": "by", "value": 1}
        assert (await client.post("/v1/signals/set", json=set_ | {"actor": "boss"})).json()["actor"] == "boss"
        for path, body in (
            ("signals/set", set_ | {"actor": "coordinator"}),
            ("agents/register", {"project": "alpha", "name": "coordinator"}),
        ):
            problem(await client.post(f"/v1/{path}", json=body), 403, "permission-denied")


async def test_a_revoked_token_opens_nothing_more_at_once(guarded_url: str, issuer: Issuer) -> None:
    token, secret = await issuer.token("reader", "alpha")
    # A check is valid for longer than the test: only the notification of the revocation can end it.
    with Daemon(guarded_url, access="tokens", constants={"coordinator.api.tokens.BELIEVED_S": 3600}) as believing:
        issuer.url = (await believing.ready()).url
        async with issuer.client(secret) as client:
            assert (await client.get("/v1/signals?project=alpha")).status_code == 200  # and is remembered
            await issuer.database.run(tokens.Revoke(token=token.id))

            async def look() -> bool:
                return (await client.get("/v1/signals?project=alpha")).status_code == 401

            await until(look, "the token is refused")


async def follow(client: httpx.AsyncClient, path: str, seen: list[str], ready: anyio.Event) -> None:
    """Collect a stream's lines to its end."""
    async with client.stream("GET", path) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            seen.append(line)
            ready.set()


async def test_a_stream_ends_with_a_reason_when_its_token_is_revoked_and_others_continue(issuer: Issuer) -> None:
    token, secret = await issuer.token("reader", "alpha")
    _, other = await issuer.token("reader", "alpha")
    path = "/v1/events/stream?project=alpha"
    async with issuer.client(secret) as client, issuer.client(other) as bystander, anyio.create_task_group() as tasks:
        seen: list[str] = []
        others: list[str] = []
        ready, there = anyio.Event(), anyio.Event()
        tasks.start_soon(follow, bystander, path, others, there)
        with anyio.fail_after(DEADLINE_S):
            await there.wait()
            async with anyio.create_task_group() as watched:
                watched.start_soon(follow, client, path, seen, ready)
                await ready.wait()
                await issuer.database.run(tokens.Revoke(token=token.id))
            # The stream has ended; what happens now is none of its business, but still the other's.
            await issuer.database.run(signals.Set(project="alpha", key="after", value="the end"))
            while not any('"after"' in line for line in others):
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert "event: bye" in seen
    assert any("token" in line for line in seen if line.startswith("data:"))
    assert not any("after" in line for line in seen)


async def test_a_stream_ends_when_its_token_expires_or_its_project_is_deleted(issuer: Issuer, guarded_url: str) -> None:
    await issuer.database.run(projects.Create(project="gone"))
    token, short = await issuer.token("reader")
    _, bound = await issuer.token("reader", "gone")
    expire = f"update coordinator.tokens set expires_at = now() where id = {token.id}"
    ends = (partial(admin, guarded_url, expire), partial(issuer.database.run, projects.Delete(project="gone")))
    for secret, end in zip((short, bound), ends, strict=True):
        seen: list[str] = []
        ready = anyio.Event()
        async with issuer.client(secret) as client:
            with anyio.fail_after(DEADLINE_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(follow, client, "/v1/events/stream?project=gone", seen, ready)
                    await ready.wait()
                    await end()
            assert "event: bye" in seen
            problem(await client.get("/v1/events?project=gone"), 401, "unauthenticated")


@pytest.mark.parametrize("path", ["/v1/directives/inbox?agent=patient&wait=20s", "/v1/events?after=now&wait=20s"])
async def test_a_wait_ends_when_its_token_is_revoked(issuer: Issuer, path: str) -> None:
    await issuer.database.run(projects.Create(project=(project := f"w{uuid4().hex[:8]}")))
    await issuer.database.run(agents.Register(project=project, name="patient", ttl=HOUR))
    token, secret = await issuer.token("reader", project)
    answers: list[httpx.Response] = []

    async def used() -> bool:
        (found,) = [one for one in await issuer.database.run(tokens.List()) if one.id == token.id]
        return found.last_used_at is not None

    async with issuer.client(secret) as client, anyio.create_task_group() as tasks:

        async def wait() -> None:
            answers.append(await client.get(f"{path}&project={project}"))

        tasks.start_soon(wait)
        await until(used, "the wait has begun")
        await issuer.database.run(tokens.Revoke(token=token.id))
        await until(lambda: bool(answers), "the wait has ended")
    problem(answers[0], 401, "unauthenticated")


async def test_the_use_of_a_token_is_recorded(issuer: Issuer) -> None:
    token, secret = await issuer.token("reader")
    async with issuer.client(secret) as client:
        await client.get("/v1/projects")
    (found,) = [one for one in await issuer.database.run(tokens.List()) if one.id == token.id]
    assert found.last_used_at is not None


async def test_no_log_line_and_no_response_contains_a_secret(issuer: Issuer, guarded: Daemon) -> None:
    token, secret = await issuer.token("reader", "alpha")
    paths = ("/v1/projects", "/v1/signals?project=alpha", "/v1/signals?project=beta", "/v1/nowhere")
    async with issuer.client(secret) as client:
        texts = [(await client.get(path)).text for path in paths]
        await issuer.database.run(tokens.Revoke(token=token.id))
        texts.append((await client.get("/v1/signals?project=alpha")).text)
    async with await issuer.as_("admin") as client:
        texts.append((await client.get("/v1/tokens")).text)
    log = guarded.output()
    assert "daemon.started" in log
    for text in (*texts, log):
        assert secret.text not in text
        assert secret.hash not in text


async def test_a_token_is_created_and_revoked_over_http(issuer: Issuer) -> None:
    secret = new_secret()
    async with await issuer.as_("admin") as client, issuer.client(secret) as other:
        body = {"name": "new", "role": "reader", "hash": secret.hash, "prefix": secret.prefix, "ttl": "1h"}
        made = (await client.post("/v1/tokens/create", json=body)).json()
        assert (made["name"], made["project"], made["actor"]) == ("new", None, "the admin")
        assert (await other.get("/v1/projects")).status_code == 200
        assert (await client.post("/v1/tokens/revoke", json={"token": made["id"]})).json() == {"result": True}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7420", "127.0.0.1.evil.example", "", "localhost.evil"])
async def test_a_host_that_is_not_this_machine_is_refused(issuer: Issuer, host: str) -> None:
    _, secret = await issuer.token("admin")
    async with issuer.client(secret, Host=host) as client:
        for path in ("/v1/projects", "/livez", "/schema", "/metrics"):
            problem(await client.get(path), 403, "permission-denied")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:80"])
async def test_this_machine_has_several_names(issuer: Issuer, host: str) -> None:
    async with issuer.client(None, Host=host) as client:
        assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "http://localhost.evil", "::"]
)
async def test_pages_of_other_sites_are_refused_without_cors_headers(issuer: Issuer, origin: str) -> None:
    _, secret = await issuer.token("admin")
    async with issuer.client(secret, Origin=origin) as client:
        for method in ("GET", "POST", "OPTIONS"):
            answer = await client.request(method, "/v1/projects")
            problem(answer, 403, "permission-denied")
            assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_the_daemons_own_pages_are_served(issuer: Issuer) -> None:
    _, secret = await issuer.token("reader")
    async with issuer.client(secret, Origin=issuer.url) as client:
        assert (await client.get("/v1/projects")).status_code == 200


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({}, True),
        ({"database_url": "postgresql://h/d"}, False),
        ({"database_url": "postgresql://h/d", "access": "open"}, True),
        ({"host": EVERYWHERE}, False),
        ({"host": "::1"}, True),
        ({"host": "localhost", "access": "tokens"}, False),
    ],
)
def test_access_is_open_only_on_loopback_and_by_default_only_with_a_private_database(
    given: dict[str, Any], answer: bool
) -> None:
    assert is_open(Config(**given)) is answer


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "db.example"])
def test_open_access_beyond_loopback_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        is_open(Config(host=host, access="open"))
    assert "COORDINATOR_ACCESS=tokens" in (raised.value.hint or "")


async def test_the_daemon_does_not_even_start_with_open_access_beyond_loopback(database_url: str) -> None:
    with Daemon(database_url, access="open", host=EVERYWHERE) as daemon:
        assert await daemon.ended() == ConfigurationError.exit_code
        assert "daemon.started" not in daemon.output()


async def test_a_token_revoked_during_its_check_is_not_remembered() -> None:
    now = datetime.now(UTC)
    token = Token(1, "t", "reader", None, "coo_aaaa", "x", now, now, now, None, None)
    asked, answer = anyio.Event(), anyio.Event()
    checks = 0

    class Slow:
        async def run(self, operation: Any) -> Any:
            nonlocal checks
            if isinstance(operation, tokens.Authenticate):
                checks += 1
                if checks > 1:
                    raise Unauthenticated("revoked")
                asked.set()
                await answer.wait()
                return token
            return True

    class Bell:
        rung = anyio.Event()

        async def wait(self, timeout_s: float) -> None:
            await self.rung.wait()
            self.rung = anyio.Event()

    known, bell = Tokens(Slow()), Bell()  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(known.run_forever, bell)
        tasks.start_soon(known.check, "hash")
        await asked.wait()
        bell.rung.set()
        await anyio.wait_all_tasks_blocked()
        answer.set()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Unauthenticated):
            await known.check("hash")
        tasks.cancel_scope.cancel()


def test_every_public_endpoint_has_a_right() -> None:
    assert None not in {endpoint.operation.least_role() for endpoint in ENDPOINTS.values()}


def test_the_repr_of_a_secret_does_not_show_it() -> None:
    secret = new_secret()
    assert secret.text not in repr(secret)
    assert msgspec.to_builtins(secret)["text"] == secret.text  # for the one place that shows it


async def transact(client: httpx.AsyncClient, *writes: dict[str, Json], **fields: Json) -> httpx.Response:
    body = {"project": "alpha", "writes": writes, **fields}
    return await client.post("/v1/transactions/run", json=body)


async def test_a_write_of_a_transaction_needs_the_role_that_it_needs_alone(issuer: Issuer) -> None:
    key = uuid4().hex
    first: dict[str, Json] = {"verb": "signal_set", "key": key, "value": 1}
    send: dict[str, Json] = {"verb": "directive_send", "body": "x", "everyone": True}
    async with (
        await issuer.as_("reader") as reader,
        await issuer.as_("agent") as agent,
        await issuer.as_("manager") as manager,
    ):
        problem(await transact(reader, first), 403, "permission-denied")
        problem(await transact(agent, first, send), 403, "permission-denied")
        problem(await agent.get(f"/v1/signals/{key}", params={"project": "alpha"}), 404, "not-found")
        answer = await transact(manager, first, send)
        assert answer.status_code == 200, answer.text
        assert {item["result"]["actor"] for item in answer.json()["items"]} == {"the manager"}


async def test_a_transaction_cannot_speak_for_others_or_reach_another_project(issuer: Issuer) -> None:
    first: dict[str, Json] = {"verb": "signal_set", "key": uuid4().hex, "value": 1}
    async with await issuer.as_("agent", "alpha") as agent:
        problem(await transact(agent, {**first, "actor": "boss"}), 403, "permission-denied")
        problem(await transact(agent, first, actor="boss"), 403, "permission-denied")
        acknowledge: dict[str, Json] = {"verb": "directive_acknowledge", "directive": 1, "agent": "boss"}
        problem(await transact(agent, first, acknowledge), 403, "permission-denied")
        problem(await transact(agent, first, project="beta"), 403, "permission-denied")
        problem(await transact(agent, {**first, "project": "beta"}), 422, "invalid-argument")
        problem(
            await transact(agent, *[{**acknowledge, "agent": f"a{n}"} for n in range(101)]), 422, "invalid-argument"
        )
        await agent.post("/v1/agents/register", json={"project": "alpha", "name": "coder-7"})
        answer = await transact(agent, first, {**first, "actor": "coder-7"})
        assert [item["result"]["actor"] for item in answer.json()["items"]] == ["the agent", "coder-7"], answer.text


async def test_an_event_says_whose_token_and_which_address_or_loop_it_comes_from(
    issuer: Issuer, guarded_url: str
) -> None:
    token, secret = await issuer.token("admin")
    key = uuid4().hex
    async with issuer.client(secret) as client, opened(guarded_url) as connection:
        called = {"project": "alpha", "key": key, "value": 1}
        for headers in ({}, {"Idempotency-Key": key}):
            assert (await client.post("/v1/signals/set", json=called, headers=headers)).status_code == 200
        await connection.execute(
            "update coordinator.signals set expires_at = coordinator.now_utc() where key = $1", key
        )

        async def look() -> list[tuple[str, dict[str, Any], bool]] | None:
            rows = await connection.fetch(
                "select type, origin, role = session_user from coordinator.events where project = 'alpha' and key = $1 order by id",
                key,
            )
            return [(row[0], json.loads(row[1]), row[2]) for row in rows] if len(rows) > 2 else None

        asked = {"token": token.id, "name": token.name, "address": "127.0.0.1"}
        assert await until(look, "the signal has expired") == [
            ("signal.set", asked, True),
            ("signal.set", asked, True),
            ("signal.expired", {"loop": "signal_expire"}, True),
        ]


async def test_what_a_token_does_is_in_the_audit_trail_and_managers_read_it(issuer: Issuer) -> None:
    token, secret = await issuer.token("manager")
    key = uuid4().hex
    async with issuer.client(secret) as client, await issuer.as_("agent") as agent:
        rule = {"project": "alpha", "when_set": key, "clears": ["X"]}
        assert (await client.post("/v1/rules/set", json=rule)).status_code == 200

        async def look() -> dict[str, Any] | None:
            answer = await client.get("/v1/audits", params={"project": "alpha", "topics": "rule.set"})
            entries = [item["entry"] for item in answer.json()["items"]]
            return next((entry for entry in entries if entry["event"]["key"] == key), None)

        entry = await until(look, "the leader has copied the event")
        assert entry["origin"] == {"token": token.id, "name": token.name, "address": "127.0.0.1"}
        answer = await client.get("/v1/audits/verify", params={"project": "alpha"})
        assert answer.json()["fault"] is None
        problem(await agent.get("/v1/audits", params={"project": "alpha"}), 403, "permission-denied")
        problem(
            await agent.get("/v1/logs/read", params={"project": "alpha", "kind": "audit", "key": "audit"}),
            403,
            "permission-denied",
        )
        problem(await client.post("/v1/audits/set", json={"project": "alpha", "topics": []}), 403, "permission-denied")
