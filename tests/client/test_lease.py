from __future__ import annotations

import anyio
import pytest

from coordinator.client import lease as clock
from coordinator.client.lease import Lease, LeaseState, is_refusal
from coordinator.errors import Conflict, DatabaseUnavailable, NotFound, PermissionDenied
from tests.waiting import DEADLINE_S

HELD, UNKNOWN, LOST, RELEASED = LeaseState.HELD, LeaseState.UNKNOWN, LeaseState.LOST, LeaseState.RELEASED


class Now:
    """A stopped clock, which tests move."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def passes(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    fake = Now()
    monkeypatch.setattr(clock, "now_s", fake)
    return fake


def test_a_granted_lease_is_held_and_trusted_for_less_than_its_ttl(now: Now) -> None:
    lease = Lease(30, now())
    assert (lease.state, lease.remaining_s) == (HELD, 27)
    assert Lease(3600, now()).remaining_s == 3600 - clock.MARGIN_MAX_S
    assert 8 <= lease.renew_in_s <= 10
    assert not lease.due


def test_a_renewal_counts_from_before_its_request_was_sent(now: Now) -> None:
    lease = Lease(30, now())
    now.passes(10)
    assert lease.due
    asked_at = now()
    now.passes(6)  # the response is slow
    lease.answered(asked_at)
    assert (lease.state, lease.remaining_s) == (HELD, 21)
    assert 2 <= lease.renew_in_s <= 4


def test_a_lease_that_is_not_renewed_is_lost_at_its_local_deadline(now: Now) -> None:
    lease = Lease(30, now())
    now.passes(26.9)
    assert lease.state is HELD
    now.passes(0.1)
    assert (lease.state, lease.remaining_s, lease.due, lease.live) == (LOST, 0, False, False)


def test_without_a_response_it_is_unknown_tried_again_soon_and_held_again(now: Now) -> None:
    lease = Lease(30, now())
    now.passes(10)
    lease.unanswered()
    assert (lease.state, lease.remaining_s) == (UNKNOWN, 17)
    assert 0.5 <= lease.renew_in_s <= 1
    now.passes(1)
    assert lease.due
    lease.answered(now())
    assert (lease.state, lease.remaining_s) == (HELD, 27)


def test_a_short_lease_is_tried_again_sooner_and_never_longer_than_it_can_be_trusted(now: Now) -> None:
    lease = Lease(2, now())
    assert lease.attempt_s == pytest.approx(1.8)
    lease.unanswered()
    assert 0.1 <= lease.renew_in_s <= 0.2
    now.passes(1.75)
    lease.unanswered()
    assert lease.renew_in_s == pytest.approx(0.05)  # to see that it is lost
    assert Lease(600, now()).attempt_s == clock.ATTEMPT_MAX_S


def test_a_process_that_was_paused_past_the_deadline_sees_a_lost_lease_whatever_arrives_then(now: Now) -> None:
    lease = Lease(30, now())
    asked_at = now()
    now.passes(60)
    lease.answered(asked_at)
    lease.answered(now())
    assert lease.state is LOST


def test_a_response_after_the_loss_does_not_revive_it(now: Now) -> None:
    lease = Lease(30, now())
    lease.refused()
    lease.answered(now())
    lease.release()
    assert (lease.state, lease.remaining_s) == (LOST, 0)


def test_an_older_response_that_overtakes_a_newer_one_shortens_nothing(now: Now) -> None:
    lease = Lease(30, now())
    now.passes(10)
    first = now()
    now.passes(2)
    lease.answered(now())
    lease.answered(first)
    assert lease.remaining_s == 27


def test_a_renewal_for_another_ttl_changes_deadline_and_schedule(now: Now) -> None:
    lease = Lease(30, now())
    lease.answered(now(), 300)
    assert lease.remaining_s == 295
    assert 80 <= lease.renew_in_s <= 100
    lease.answered(now(), 3)
    assert lease.remaining_s == pytest.approx(2.7)


def test_a_renewal_that_is_to_be_for_another_ttl_changes_the_schedule_and_not_yet_the_deadline(now: Now) -> None:
    lease = Lease(600, now())
    lease.renew_for(30)
    assert (lease.remaining_s, lease.renew_in_s) == (595, 10)
    now.passes(10)
    lease.answered(now())
    assert lease.remaining_s == 27


def test_a_released_lease_needs_no_renewal_and_may_turn_out_to_have_been_lost(now: Now) -> None:
    lease = Lease(30, now())
    lease.release()
    now.passes(100)
    assert (lease.state, lease.due, lease.nearly_due, lease.remaining_s) == (RELEASED, False, False, 0)
    lease.refused()
    assert lease.state is LOST


def test_a_revivable_lease_is_unknown_past_its_deadline_until_the_server_says(now: Now) -> None:
    lease = Lease(30, now(), revivable=True)
    now.passes(1000)
    assert (lease.state, lease.remaining_s, lease.due, lease.live) == (UNKNOWN, 0, True, True)
    lease.unanswered()
    assert lease.renew_in_s > 0
    assert lease.attempt_s > 0
    lease.answered(now())
    assert lease.state is HELD
    now.passes(1000)
    lease.refused()
    assert lease.state is LOST


def test_leases_that_are_nearly_due_are_renewed_with_one_that_is(now: Now) -> None:
    first = Lease(30, now())
    now.passes(4)
    second = Lease(30, now())
    now.passes(6)
    assert first.due
    assert second.nearly_due
    assert not second.due
    assert not Lease(30, now()).nearly_due
    second.unanswered()
    assert second.nearly_due


def test_a_hint_makes_it_due(now: Now) -> None:
    lease = Lease(30, now())
    lease.hurry()
    assert lease.due
    lease.answered(now())
    assert not lease.due


async def test_waiting_for_a_renewal_ends_when_it_is_due_when_the_lease_ends_and_at_a_hint(
    now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "TICK_S", 0.001)
    lease = Lease(600, now())
    hint = anyio.Event()
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lease.wait_due, hint)
            await anyio.sleep(0.01)
            hint.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lease.wait_due, anyio.Event())
            await anyio.sleep(0.01)
            now.passes(200)  # no timer was set for that: the machine was suspended
        assert lease.due
        lease.refused()
        await lease.wait_due(anyio.Event())


def test_only_the_servers_word_on_the_lease_is_a_refusal() -> None:
    assert is_refusal(NotFound("reaped", code="ZC202"))
    assert is_refusal(Conflict("another holder", code="ZC311"))
    for error in (DatabaseUnavailable("away"), PermissionDenied("revoked"), Conflict("deadlock", code="40P01")):
        assert not is_refusal(error)
