"""Clients that call whichever daemons there are, of either release, over HTTP, and know what must come of it.

Each write has an idempotency key and is repeated, at any daemon, while the answer is 503 or the connection is lost. Any other
failure is an error of the test.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import anyio
import httpx

from tests.daemon import Daemon
from tests.http_client import http_client
from tests.waiting import DEADLINE_S, until

PROJECT = "default"
PAUSE_S = 0.01
LOCKED = "ZC310"
LONG = "1h"  # no lease ends because the machine is slow


class MixedLoad:
    """`daemons` are those that are called; the test adds and removes them. `rounds` counts what each kind of client has done, by daemon."""

    def __init__(self, seed: int) -> None:
        self.daemons: list[Daemon] = []
        self.rounds: Counter[tuple[str, int]] = Counter()  # kind of client, process id of the daemon of its last call
        self.seqs: list[int] = []
        self.busy: Counter[str] = Counter()  # codes of answers that were repeated
        self._random = random.Random(seed)
        self._called = 0
        self._tokens: list[int] = []
        self._inside = False
        self._completed: set[str] = set()

    async def run(self) -> None:
        """Call until cancelled."""
        kinds = (self._signals, self._locks, self._locks, self._jobs, self._state, self._directives, self._follow)
        async with anyio.create_task_group() as tasks:
            for number, kind in enumerate(kinds):
                tasks.start_soon(self._client, kind, number)

    async def worked(self, *daemons: Daemon) -> None:
        """Wait until each kind of client has ended rounds at each of these daemons since now."""
        kinds = ("_signals", "_locks", "_jobs", "_state", "_directives", "_follow")
        before = self.rounds.copy()

        async def all_worked() -> bool:
            pids = [daemon.process.pid for daemon in daemons]
            return all(self.rounds[kind, pid] >= before[kind, pid] + 2 for kind in kinds for pid in pids)

        await until(all_worked, "every kind of call succeeds at every daemon", every_s=0.05)

    async def _client(self, kind: Callable[[httpx.AsyncClient, int], Awaitable[None]], number: int) -> None:
        async with http_client() as http:
            while True:
                await kind(http, number)

    async def _call(self, http: httpx.AsyncClient, kind: str, method: str, path: str, **given: Any) -> Any:
        key = {"idempotency-key": uuid4().hex} if method == "POST" else {}
        with anyio.fail_after(DEADLINE_S):
            while True:
                await anyio.sleep(self._random.uniform(0, PAUSE_S))
                daemon = self._random.choice(self.daemons)
                try:
                    answer = await http.request(method, daemon.url + path, headers=key, **given)
                except httpx.TransportError as error:
                    self.busy[type(error).__name__] += 1
                    continue
                if answer.status_code == httpx.codes.OK:
                    self.rounds[kind, daemon.process.pid] += 1
                    return answer.json()
                code = answer.json().get("code")
                if code == LOCKED:
                    return LOCKED
                assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE or code == "ZC306", answer.text
                self.busy[code] += 1

    async def _post(self, http: httpx.AsyncClient, kind: str, path: str, /, **body: Any) -> Any:
        return await self._call(http, kind, "POST", path, json={"project": PROJECT, **body})

    async def _agent(self, http: httpx.AsyncClient, kind: str, /, **fields: Any) -> str:
        agent = await self._post(http, kind, "/v1/agents/register", name=f"a-{uuid4().hex[:12]}", ttl=LONG, **fields)
        return str(agent["id"])

    async def _signals(self, http: httpx.AsyncClient, number: int) -> None:
        kind, version = "_signals", 0
        for value in range(5):
            made = await self._post(http, kind, "/v1/signals/set", key=f"s/{number}", value=value)
            assert made["version"] > version
            version = made["version"]
            found = await self._call(http, kind, "GET", f"/v1/signals/s%2F{number}", params={"project": PROJECT})
            assert (found["value"], found["version"]) == (value, version)

    async def _locks(self, http: httpx.AsyncClient, _number: int) -> None:
        kind = "_locks"
        agent = await self._agent(http, kind)
        for _ in range(5):
            # It waits in the queue, if the other one has it.
            wanted = {"agent": agent, "resources": ["shared"], "ttl": LONG}
            while (granted := await self._post(http, kind, "/v1/locks/acquire", **wanted)) is LOCKED:
                pass  # the other client has it
            (grant,) = granted["items"]
            assert not self._inside, "two holders of one lock"
            self._inside = True
            token = grant["fencing_token"]
            assert not self._tokens or token > self._tokens[-1], "a token was repeated"
            self._tokens.append(token)
            await anyio.sleep(self._random.uniform(0, PAUSE_S))
            self._inside = False
            await self._post(http, kind, "/v1/locks/release", agent=agent, resources=["shared"], tokens=[token])
        await self._post(http, kind, "/v1/agents/deregister", agent=agent)

    async def _jobs(self, http: httpx.AsyncClient, _number: int) -> None:
        kind = "_jobs"
        agent = await self._agent(http, kind, job_types=["work"])
        for value in range(5):
            job = (await self._post(http, kind, "/v1/jobs/enqueue", type="work", payload={"value": value}))["id"]
            claimed = await self._post(http, kind, "/v1/jobs/claim", agent=agent, request_id=str(uuid4()))
            (grant,) = claimed["items"]
            assert grant["id"] == job
            given = {"job": job, "agent": agent, "fence": grant["fence"]}
            await self._post(http, kind, "/v1/jobs/complete", **given, result={"value": value})
            assert job not in self._completed
            self._completed.add(job)
            found = await self._call(http, kind, "GET", "/v1/jobs/show", params={"project": PROJECT, "job": job})
            assert (found["status"], found["result"]) == ("completed", {"value": value})
        await self._post(http, kind, "/v1/agents/deregister", agent=agent)

    async def _state(self, http: httpx.AsyncClient, _number: int) -> None:
        kind, key = "_state", uuid4().hex
        version = 0
        for turn in range(1, 6):
            entry = {"kind": "note", "key": key, "entries": [{"data": {"turn": turn}}]}
            assert (await self._post(http, kind, "/v1/logs/append", **entry))["last_seq"] == turn
            document = {"kind": "note", "key": key, "value": {"turn": turn}, "expect": version}
            version = (await self._post(http, kind, "/v1/documents/put", **document))["version"]

    async def _directives(self, http: httpx.AsyncClient, _number: int) -> None:
        kind = "_directives"
        agent = await self._agent(http, kind)
        sent = await self._post(http, kind, "/v1/directives/send", to_agent=agent, body="Do it.")
        inbox = await self._call(http, kind, "GET", "/v1/directives/inbox", params={"project": PROJECT, "agent": agent})
        assert [one["id"] for one in inbox["items"]] == [sent["id"]]
        await self._post(http, kind, "/v1/directives/acknowledge", directive=sent["id"], agent=agent)
        await self._post(http, kind, "/v1/agents/deregister", agent=agent)

    async def _follow(self, http: httpx.AsyncClient, _number: int) -> None:
        """Read the whole log page by page, each from another daemon."""
        after = "start"
        while True:
            page = await self._call(http, "_follow", "GET", "/v1/events", params={"after": after, "limit": 500})
            self.seqs += [event["seq"] for event in page["items"]]
            after = page["cursor"]
