"""Random histories of real processes under faults are judged; and the judge finds bugs that were planted for it."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import anyio
import pytest

from coordinator import embedded
from coordinator.db import schema
from tests.concurrency.lock_fleet import LIGHT, Fleet, prepare
from tests.concurrency.lock_history import grants
from tests.conftest import cloned
from tests.daemon import note, opened
from tests.relay.load import LONG_S
from tests.waiting import DEADLINE_S

# What a server acknowledged is on its way to the disk; nobody loses power here.
SETTINGS = {"fsync": "off", "max_connections": "100"}


@pytest.mark.parametrize("seconds", [6.0, pytest.param(LONG_S, marks=pytest.mark.long)])
async def test_histories_under_faults_have_no_fault(tmp_path: Path, seconds: float) -> None:
    folder = tmp_path / "history"
    folder.mkdir()
    seed = time.time_ns() % 1_000_000 if seconds > 6 else 7
    async with embedded.run(tmp_path / "data", settings=SETTINGS) as server:
        async with opened(server.dsn) as connection:
            await schema.apply(connection)
        await prepare(server.dsn)
        fleet = Fleet(server.dsn, folder, seed=seed)
        with fleet.running():
            await fleet.working()
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                for heavy in (fleet.kill, fleet.pause, partial(fleet.restart, server)):
                    await fleet.befall(LIGHT, 1)
                    await heavy()
                await fleet.befall(LIGHT, 1)
        violations = await fleet.violations()
    granted = grants(fleet.lines())
    note("histories: grants, waited", [len(granted), sum(grant.ticket is not None for grant in granted)])
    assert not violations, (seed, len(violations), violations[:5], fleet.befallen)
    assert len(granted) > 30
    assert sum(grant.waiting is not None for grant in granted) > 5, "nobody waited: order was not tested"


# Each makes one promise untrue, as somebody who means well might.
PLANTED = {
    # Acquire looks, then acts, and nothing keeps two who overlap from looking at once.
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
  assert v_enter ~ 'pg_advisory_xact_lock' and v_acquire ~ 'v_told :=' and v_write ~ 'perform coordinator.outbox_append';
  execute regexp_replace(v_enter, 'pg_advisory_xact_lock(_shared)?', '', 'g');
  execute replace(v_acquire, 'v_told :=', 'perform pg_sleep(0.05); v_told :=');
  execute replace(v_write, 'perform coordinator.outbox_append', 'perform pg_sleep(0.05); perform coordinator.outbox_append');
end $$
""",
    # The fence looks, and does not hold on to what it saw.
    "fence": """
create or replace function coordinator.assert_fence(p_project text, p_resource text, p_token bigint) returns void
language plpgsql volatile as $$
begin
  perform from coordinator.locks where fencing_token = p_token and expires_at > clock_timestamp();
  if not found then
    raise exception using errcode = 'ZC312', message = 'stale';
  end if;
  perform pg_sleep(0.05);
end $$
""",
    # Whoever asks gets what is free, whoever waits.
    "order": """
create or replace function coordinator.lock_waits_overlapping(p_project_id bigint, p_r coordinator.lock_resource)
returns setof coordinator.lock_waits language sql stable as 'select * from coordinator.lock_waits where false'
""",
}


@pytest.mark.parametrize("promise", PLANTED)
async def test_a_planted_bug_is_found(server_url: str, template: str, tmp_path: Path, promise: str) -> None:
    found: list[str] = []
    seed = 3
    with anyio.fail_after(DEADLINE_S):
        # Where a bug shows at all it does so soon; where the workers came to stand in each other's way, others begin anew.
        while not any(violation.startswith(promise) for violation in found):
            (folder := tmp_path / str(seed)).mkdir()
            found = await planted(server_url, template, folder, promise, seed)
            seed += 1
    note(f"planted {promise}: violations, fleets", [len(found), seed - 3])


async def planted(server_url: str, template: str, folder: Path, promise: str, seed: int) -> list[str]:
    """Let a fleet run for some seconds with a broken promise, and judge it."""
    async with cloned(server_url, template) as url:
        async with opened(url) as connection:
            await connection.execute(PLANTED[promise])
        await prepare(url)
        fleet = Fleet(url, folder, seed=seed)
        found: list[str] = []
        with fleet.running():
            await fleet.working()
            for _ in range(8):
                await fleet.befall(("take",), 0.5)
                found = await fleet.violations()
                if any(violation.startswith(promise) for violation in found):
                    break
        return found
