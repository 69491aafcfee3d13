"""Locks against a small model: whatever is done in whatever order, the database and the model agree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from coordinator.errors import CoordinatorError
from coordinator.operations import agents, locks
from tests.sql.machine import Machine, check

SETS = {
    "a": {"a"},
    "d/": {"d", "d/x", "d/y"},
    "d/x": {"d/x"},
    "d/y": {"d/y"},
    "d/?": {"d/x", "d/y"},
    "name:n": {"n"},
}
CLAIM = 10.0

names = st.sampled_from(["ann", "bob", "cid", "dan"])
wanted = st.lists(st.sampled_from(sorted(SETS)), min_size=1, max_size=3, unique=True).map(sorted)


def clash(resource: str, shared: bool, other: str, other_shared: bool) -> bool:
    return not (shared and other_shared) and bool(SETS[resource] & SETS[other])


@dataclass
class Held:
    agent: str
    resource: str
    shared: bool
    token: int
    expires: float
    ttl: float
    ticket: int | None = None
    claimed: bool = True


@dataclass
class Ticket:
    id: int
    agent: str
    resources: list[str]
    shared: bool
    ttl: float
    deadline: float


class Locks(Machine):
    @initialize()
    def begin(self) -> None:
        super().begin()
        self.now = 0.0
        self.do(self.tx.set_clock(timedelta(0)))
        self.ids: dict[str, UUID] = {}
        for name in ("ann", "bob", "cid", "dan"):
            self.register(name)
        self.held: list[Held] = []
        self.queue: list[Ticket] = []
        self.lost: list[tuple[str, str, int]] = []
        self.greatest = 0

    def run(self, operation: Any) -> tuple[str | None, Any]:
        try:
            return None, self.do(self.tx.run(operation))
        except CoordinatorError as error:
            return error.code, None

    def register(self, name: str) -> None:
        self.ids[name] = self.do(self.tx.run(agents.Register(project="default", name=name, ttl=timedelta(days=1)))).id

    # The model.

    def own(self, agent: str, resource: str, shared: bool) -> Held | None:
        return next(
            (h for h in self.held if h.agent == agent and h.resource == resource and (shared or not h.shared)), None
        )

    def blockers(self, agent: str, resources: list[str], shared: bool, before: int | None) -> set[str]:
        wants = [r for r in resources if not self.own(agent, r, shared)]
        return {
            h.agent for h in self.held for r in wants if h.agent != agent and clash(r, shared, h.resource, h.shared)
        } | {
            t.agent
            for t in self.queue
            for r in wants
            for other in t.resources
            if t.agent != agent and (before is None or t.id < before) and clash(r, shared, other, t.shared)
        }

    def cycle(self, agent: str, first: set[str]) -> bool:
        seen, new = set(), set(first)
        while new:
            seen |= new
            new = {
                b for t in self.queue if t.agent in new for b in self.blockers(t.agent, t.resources, t.shared, t.id)
            } - seen
        return agent in seen

    def grant(  # noqa: PLR0917
        self, agent: str, resources: list[str], shared: bool, ttl: float, ticket: int | None, claimed: bool
    ) -> None:
        """Take the tokens from the database; that they grow is what is tested."""
        rows = self.do(
            self.connection.fetch(
                "select resource, fencing_token from coordinator.lock_holders where agent_id = $1", self.ids[agent]
            )
        )
        tokens = dict(rows)
        for resource in resources:
            expires = self.now + (ttl if claimed else min(ttl, CLAIM))
            if held := self.own(agent, resource, shared):
                assert tokens[resource] == held.token
                held.expires, held.ttl = max(held.expires, expires), ttl
                held.claimed = True
                held.ticket = ticket or held.ticket
                continue
            for h in [h for h in self.held if h.agent == agent and h.resource == resource]:
                self.held.remove(h)
                self.lost.append((agent, resource, h.token))
            assert tokens[resource] > self.greatest
            self.held.append(Held(agent, resource, shared, tokens[resource], expires, ttl, ticket, claimed))

    def grown(self) -> None:
        """Expect greater tokens from the next operation. One that frees several resources may grant them in any order."""
        self.greatest = max([self.greatest, *(h.token for h in self.held)])

    def settle(self) -> None:
        for ticket in list(self.queue):
            if not self.blockers(ticket.agent, ticket.resources, ticket.shared, ticket.id):
                self.queue.remove(ticket)
                self.grant(ticket.agent, ticket.resources, ticket.shared, ticket.ttl, ticket.id, claimed=False)
        self.grown()

    def lose(self, held: Held) -> None:
        self.held.remove(held)
        self.lost.append((held.agent, held.resource, held.token))

    # What can happen.

    @rule(
        agent=names, resources=wanted, shared=st.booleans(), ttl=st.integers(5, 60), wait=st.none() | st.integers(5, 60)
    )
    def acquire(self, agent: str, resources: list[str], shared: bool, ttl: int, wait: int | None) -> None:
        if any(t.agent == agent for t in self.queue):
            wait = None
        code, grants = self.run(
            locks.Acquire(
                project="default",
                resources=resources,
                agent=self.ids[agent],
                shared=shared,
                ttl=timedelta(seconds=ttl),
                wait=None if wait is None else timedelta(seconds=wait),
            )
        )
        blockers = self.blockers(agent, resources, shared, None)
        if not blockers:
            assert code is None
            assert all(g.granted for g in grants)
            self.grant(agent, resources, shared, ttl, None, claimed=True)
            self.grown()
        elif wait is None:
            assert code == "ZC310"
        elif self.cycle(agent, blockers):
            assert code == "ZC313"
        else:
            assert code is None
            assert not any(g.granted for g in grants)
            self.queue.append(Ticket(grants[0].ticket, agent, resources, shared, ttl, self.now + wait))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.held))
        code, _ = self.run(
            locks.Release(project="default", resources=[held.resource], agent=self.ids[held.agent], tokens=[held.token])
        )
        assert code is None
        self.lose(held)
        self.settle()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), ttl=st.none() | st.integers(5, 60))
    def renew(self, data: st.DataObject, ttl: int | None) -> None:
        held = data.draw(st.sampled_from(self.held))
        code, _ = self.run(
            locks.Renew(
                project="default",
                resources=[held.resource],
                agent=self.ids[held.agent],
                tokens=[held.token],
                ttl=None if ttl is None else timedelta(seconds=ttl),
            )
        )
        assert code is None
        held.ttl = held.ttl if ttl is None else ttl
        held.expires = self.now + held.ttl
        held.claimed = True

    @precondition(lambda self: self.lost)
    @rule(data=st.data(), kind=st.sampled_from([locks.Renew, locks.Release]))
    def use_a_lost_lock(self, data: st.DataObject, kind: Any) -> None:
        agent, resource, token = data.draw(st.sampled_from(self.lost))
        code, _ = self.run(kind(project="default", resources=[resource], agent=self.ids[agent], tokens=[token]))
        assert code == "ZC311"

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def break_(self, data: st.DataObject) -> None:
        resource = data.draw(st.sampled_from(self.held)).resource
        code, count = self.run(locks.Break(project="default", resource=resource, reason="test"))
        broken = [h for h in self.held if h.resource == resource]
        assert (code, count) == (None, len(broken))
        for held in broken:
            self.lose(held)
        self.settle()

    @rule(seconds=st.integers(1, 30), sweep=st.booleans())
    def pass_time(self, seconds: int, sweep: bool) -> None:
        self.now += seconds
        self.do(self.tx.set_clock(timedelta(seconds=self.now)))
        for held in [h for h in self.held if h.expires <= self.now]:
            self.lose(held)
        if sweep or self.queue:
            while self.run(locks.Expire())[1]:
                pass
        self.queue = [t for t in self.queue if t.deadline > self.now]
        self.settle()

    @precondition(lambda self: self.held or self.queue)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        agent = data.draw(st.sampled_from([one.agent for one in (*self.held, *self.queue)]))
        self.do(self.tx.run(agents.Deregister(agent=self.ids[agent])))
        self.register(agent)
        for held in [h for h in self.held if h.agent == agent]:
            self.held.remove(held)
        self.queue = [t for t in self.queue if t.agent != agent]
        self.settle()

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.queue))
        assert self.run(locks.Cancel(project="default", ticket=ticket.id, agent=self.ids[ticket.agent])) == (None, True)
        self.queue.remove(ticket)
        self.settle()

    @precondition(lambda self: any(not h.claimed for h in self.held))
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([h for h in self.held if not h.claimed]))
        code, grants = self.run(locks.Poll(project="default", ticket=one.ticket, agent=self.ids[one.agent]))
        assert code is None
        assert all(g.granted for g in grants)
        for held in [h for h in self.held if h.ticket == one.ticket and not h.claimed]:
            held.claimed = True
            held.expires = self.now + held.ttl

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def poll(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.queue))
        code, grants = self.run(locks.Poll(project="default", ticket=ticket.id, agent=self.ids[ticket.agent]))
        assert code is None
        assert not any(g.granted for g in grants)

    # What is always so.

    @invariant()
    def the_database_agrees(self) -> None:
        if not hasattr(self, "transaction"):
            return
        holders, waiters = self.do(
            self.connection.fetchrow(
                """
                select array(select row (agent, resource, mode = 'shared', fencing_token,
                                         extract(epoch from expires_at - transaction_timestamp())::float)
                             from coordinator.lock_holders order by agent, resource),
                       array(select distinct row (ticket, agent) from coordinator.lock_waiters order by 1)
                """
            )
        )
        mine = sorted((h.agent, h.resource, h.shared, h.token, round(h.expires, 3)) for h in self.held)
        assert [(*row[:4], round(row[4], 3)) for row in holders] == mine
        assert waiters == [(t.id, t.agent) for t in self.queue]

    @invariant()
    def no_two_hold_what_overlaps(self) -> None:
        held = getattr(self, "held", [])
        assert not [
            (a, b)
            for a in held
            for b in held
            if a.agent != b.agent and clash(a.resource, a.shared, b.resource, b.shared)
        ]


def test_locks_do_as_the_model_does(shared_url: str) -> None:
    check(Locks, shared_url, examples=60)
