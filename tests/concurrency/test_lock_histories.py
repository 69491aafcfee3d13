"""The judge finds no fault in random histories of real processes, and finds each bug that is planted for it.

How long these tests run is decided by the work that was done, never by the clock alone: a slow machine does it later.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import pytest

from coordinator import embedded
from tests.concurrency.lock_fleet import LIGHT, Fleet, prepare
from tests.concurrency.lock_history import Answer, Grant, grants
from tests.conftest import BOUND_S, BOUND_WAITS, admin, cloned
from tests.daemon import note, opened
from tests.relay.load import LONG_S
from tests.waiting import DEADLINE_S

# What a server acknowledged is on its way to the disk; nobody loses power here.
SETTINGS = {"fsync": "off", "max_connections": "100"}
GRANTS, WAITED = 30, 5  # a history must have more than this to be judged
FLEETS = 12
ANSWERS = 3000  # of a fleet with a planted bug; the bug mostly shows within a few hundred
ROUNDS = 40  # for a fleet that does not get so far, since its workers block each other


@pytest.mark.parametrize("seconds", [0.0, pytest.param(LONG_S, marks=pytest.mark.long)])
async def test_histories_under_faults_have_no_fault(tmp_path: Path, data_dir: Path, seconds: float) -> None:
    """Every fault at least once, and as many grants as it takes to judge by."""
    folder = tmp_path / "history"
    folder.mkdir()
    seed = time.time_ns() % 1_000_000 if seconds else 7
    async with embedded.run(data_dir, settings=SETTINGS) as server:
        await prepare(server.dsn)
        # An acquire waits for the guarded transaction of an expired lock; on a busy machine, a paused worker keeps its own open for longer than a second.
        await admin(server.dsn, BOUND_WAITS.format(f"{BOUND_S:g}", f"{DEADLINE_S:g}"))
        fleet = Fleet(server.dsn, folder, seed=seed)
        with anyio.fail_after(seconds + 5 * DEADLINE_S), fleet.running():
            await fleet.working()
            deadline = time.monotonic() + seconds
            granted: list[Grant] = []
            while time.monotonic() < deadline or len(granted) <= GRANTS or waited(granted) <= WAITED:
                for heavy in (fleet.kill, fleet.pause, partial(fleet.restart, server)):
                    await fleet.befall(LIGHT, 1)
                    await heavy()
                await fleet.befall(LIGHT, 1)
                granted = grants(fleet.lines())
        violations = await fleet.violations()
    granted = grants(fleet.lines())
    note("histories: grants, waited", [len(granted), sum(grant.ticket is not None for grant in granted)])
    assert not violations, (seed, len(violations), violations[:5], fleet.befallen)
    assert len(granted) > GRANTS
    assert waited(granted) > WAITED, "nobody waited: order was not tested"


def waited(granted: Sequence[Grant]) -> int:
    """Return how many of the grants were waited for."""
    return sum(grant.waiting is not None for grant in granted)


# Each makes one promise untrue, as somebody who means well might.
PLANTED = {
    # Acquire checks, then acts, and nothing prevents two overlapping calls from checking at once.
    "holders": """
create or replace function coordinator.lock_enter(p_project_id bigint, p_resources coordinator.lock_resource[]) returns void
language sql volatile as 'select';
create or replace function coordinator.lock_queue_enter(p_project_id bigint) returns void language sql volatile as 'select';
do $$
declare
  v_enter   text := pg_get_functiondef('coordinator.lock_enter_plain'::regproc);
  v_acquire text := pg_get_functiondef('coordinator.lock_acquire'::regproc);
  v_write   text := pg_get_functiondef('coordinator.lock_write'::regproc);
begin
  assert v_enter ~ 'pg_try_advisory_xact_lock' and v_acquire ~ 'insert into coordinator.events' and v_write ~ 'perform coordinator.event_append';
  execute regexp_replace(v_enter, 'pg_try_advisory_xact_lock(_shared)?', 'null is distinct from ', 'g');
  execute replace(v_acquire, 'insert into coordinator.events', 'perform pg_sleep(0.05); insert into coordinator.events');
  execute replace(v_write, 'perform coordinator.event_append', 'perform pg_sleep(0.05); perform coordinator.event_append');
end $$
""",
    # The fence looks, and does not hold on to what it saw: now and then, the lock changes hands before the transaction writes.
    "fence": """
create or replace function coordinator.assert_fence(p_project text, p_resource text, p_token bigint) returns void
language plpgsql volatile as $$
begin
  perform from coordinator.locks where fencing_token = p_token and expires_at > clock_timestamp();
  if not found then
    raise exception using errcode = 'ZC312', message = 'stale';
  end if;
  perform pg_sleep(case when random() < 0.3 then 0.5 else 0 end);
end $$
""",
    # Whoever asks gets what is free, whoever waits.
    "order": """
create or replace function coordinator.lock_rows(p_waiting boolean, p_from bigint, p_before bigint) returns setof coordinator.locks
language sql stable as 'select * from coordinator.locks where not p_waiting'
""",
    # The owners of an agent may use what each of them holds.
    "holders of one agent": """
create or replace function coordinator.lock_may_use(p_agent uuid, p_owner text, p_of_agent uuid, p_of_owner text) returns boolean
language sql immutable as 'select p_agent = p_of_agent'
""",
    # The first release ends what its owner acquired twice.
    "holders after a release": """
do $$
declare
  v_release text := pg_get_functiondef('coordinator.lock_release_any'::regproc);
begin
  assert v_release ~ 'cardinality\\(l.requests\\) > 1';
  execute replace(v_release, 'cardinality(l.requests) > 1', 'false');
end $$
""",
}
# Broken locks are what shows most bugs. This one shows while locks are held, and only expired ones are handed on.
BREAKING = {"holders after a release": ("take", "expire", "expire", "expire")}


@pytest.mark.parametrize("promise", PLANTED)
async def test_a_planted_bug_is_found(server_url: str, template: str, tmp_path: Path, promise: str) -> None:
    for seed in range(3, 3 + FLEETS):
        (folder := tmp_path / str(seed)).mkdir()
        if await shows(server_url, template, folder, promise, seed):
            return
    pytest.fail(f"the judge did not find the planted bug in {FLEETS} fleets")


async def shows(server_url: str, template: str, folder: Path, promise: str, seed: int) -> bool:
    """Let a fleet work with a broken promise; return whether the judge notices."""
    async with cloned(server_url, template) as url:
        async with opened(url) as connection:
            await connection.execute(PLANTED[promise])
        await prepare(url)
        fleet = Fleet(url, folder, seed=seed, poll_s=0.03)  # most calls are polls: a third as many find a bug as soon
        with fleet.running():
            await fleet.working()
            for _ in range(ROUNDS):
                await fleet.befall(BREAKING.get(promise, ("take",)), 0.5)
                found = await fleet.violations()
                answers = sum(isinstance(line, Answer) for line in fleet.lines())
                if any(violation.startswith(promise.split(maxsplit=1)[0]) for violation in found):
                    note(f"planted {promise}: violations, seed, answers", [len(found), seed, answers])
                    return True
                if answers > ANSWERS:
                    break
        return False
