"""Pages of every list: in order, without loss or repetition, with ties at each border, and whatever comes and goes."""

from __future__ import annotations

from uuid import UUID

import pytest
from msgspec.structs import replace

from coordinator.errors import InvalidArgument
from coordinator.model.page import walk
from coordinator.operations import locks, signals
from tests import nouns
from tests.catalogue.test_operations import OPERATIONS
from tests.conftest import Transaction
from tests.nouns import Pages
from tests.nouns.lock import some_locks
from tests.nouns.signal import some_signals

P = "default"
CASES = [pages for _, its in nouns.each("PAGES") for pages in its]
LISTS = {type(case.operation): case for case in reversed(CASES)}

# Of these the answer has as many rows as the question, or a cursor in each row; or it is a single thing with its holders.
NO_LISTS = {
    "cron_preview",
    "doctor_run",
    "events_since",
    "lock_chains",
    "lock_check",
    "lock_show",
    "message_window",
    "server_calls",
    "server_sizes",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operation.function)
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
async def test_pages_together_are_the_whole(tx: Transaction, case: Pages, limit: int) -> None:
    await case.fill(tx)
    whole = await tx.run(case.operation)
    assert len(whole) >= case.least
    pages = [page async for page in walk(tx.run, replace(case.operation, limit=limit))]
    assert [row for page in pages for row in page] == whole
    assert {len(page) for page in pages[:-1]} <= {limit}
    assert [page.cursor is None for page in pages] == [False] * (len(pages) - 1) + [True]
    assert len({page.cursor for page in pages}) == len(pages)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operation.function)
async def test_max_rows_ends_a_walk_with_a_cursor_to_continue_from(tx: Transaction, case: Pages) -> None:
    await case.fill(tx)
    pages = [page async for page in walk(tx.run, replace(case.operation, limit=2), max_rows=3)]
    assert [len(page) for page in pages] == [2, 1]
    assert pages[-1].cursor is not None


@pytest.mark.parametrize("case", LISTS.values(), ids=lambda case: case.operation.function)
async def test_an_invalid_place_in_a_list_is_refused_with_a_hint(tx: Transaction, case: Pages) -> None:
    await case.fill(tx)
    row = (await tx.run(case.operation))[0]
    values = [getattr(row, name) for name in case.operation.page_by]
    place = ["" if value is None else str(value) for value in values]
    await tx.run(replace(case.operation, after=place))
    wrong: list[list[str | None]] = [[], place[1:], [*place, "1"], [None, *place[1:]]]
    wrong += [
        [*place[:index], bad, *place[index + 1 :]]
        for index, value in enumerate(values)
        if isinstance(value, int | UUID)
        for bad in ("", "x", "1.5", "9" * 19, "1\n", None)
    ]
    for after in wrong:
        with pytest.raises(InvalidArgument) as raised:
            await tx.run(replace(case.operation, after=after))
        assert (raised.value.code, bool(raised.value.hint)) == ("ZC103", True), after
    with pytest.raises(InvalidArgument):
        await tx.run(replace(case.operation, limit=0))


async def test_what_comes_and_goes_between_two_pages_moves_nothing_over_the_border(tx: Transaction) -> None:
    await some_signals(tx)
    seen = []
    async for page in walk(tx.run, signals.List(project=P, limit=2)):
        seen += [signal.key for signal in page]
        if len(seen) == 2:
            await tx.run(signals.Delete(project=P, key="a"))
            await tx.run(signals.Set(project=P, key="a/0", value=1))
            await tx.run(signals.Set(project=P, key="a/3", value=1))
    assert seen == ["a", "a/1", "a/10", "a/2", "a/3", "a/é", "b", "\U0001f600"]


async def test_a_holder_that_renews_between_two_pages_stays_where_it_is(tx: Transaction) -> None:
    await some_locks(tx)
    whole = [lock.fencing_token for lock in await tx.run(locks.List(project=P))]
    seen: list[int] = []
    async for page in walk(tx.run, locks.List(project=P, limit=1)):
        seen += [lock.fencing_token for lock in page]
        for lock in page:
            await tx.run(
                locks.Renew(project=P, resources=[lock.resource], agent=lock.agent_id, tokens=[lock.fencing_token])
            )
    assert seen == whole


def test_every_list_comes_in_pages_and_is_under_test() -> None:
    """Whatever answers a question with rows; what answers a change has as many rows as were to be changed."""
    lists = {kind for kind in OPERATIONS if kind.reads and not kind.internal and kind.answer()[0].name == "MANY"}
    assert {kind.function for kind in lists if not kind.page_by} == NO_LISTS
    assert {kind for kind in OPERATIONS if kind.page_by} == set(LISTS)
    for kind in LISTS:
        assert kind.__struct_fields__[-2:] == ("after", "limit"), kind.function
