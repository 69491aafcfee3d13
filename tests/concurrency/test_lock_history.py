"""The judge of lock histories, on histories written by hand: each that is wrong is found, for its own reason."""

from __future__ import annotations

import pytest

from tests.concurrency.lock_history import Access, Answer, Call, Line, check


def held(op: str, span: tuple[float, float], token: int, resource: str, *, shared: bool = False) -> list[Line]:
    """An agent that acquires and releases."""
    since, until = span
    return [
        Call(f"{op}-a", "acquire", since - 0.1, op, (resource,), shared, 30, request=op),
        Answer(f"{op}-a", since, "granted", token=token),
        Call(f"{op}-r", "release", until, op, (resource,), token=token),
        Answer(f"{op}-r", until + 0.1, "done"),
    ]


def owned(op: str, span: tuple[float, float], token: int, owner: str, uses: int = 1) -> list[Line]:
    """An owner of one agent that acquires a resource, possibly again at once, and releases it as often, a second apart."""
    since, until = span
    lines: list[Line] = []
    for n in range(uses):
        lines += [
            Call(f"{op}-a{n}", "acquire", since - 0.1, "one", ("src/a.py",), ttl=30, request=f"{op}{n}", owner=owner),
            Answer(f"{op}-a{n}", since, "granted", token=token),
            Call(f"{op}-r{n}", "release", until + n, "one", ("src/a.py",), token=token),
        ]
    return lines


def waited(op: str, span: tuple[float, float], ticket: int, token: int, resource: str) -> list[Line]:
    """A caller that waits, and is granted the lock later."""
    told, since = span
    return [
        Call(f"{op}-a", "acquire", told - 0.1, op, (resource,), ttl=30, request=op),
        Answer(f"{op}-a", told, "waiting", ticket),
        Call(f"{op}-p", "poll", since - 0.1, op, ticket=ticket),
        Answer(f"{op}-p", since, "granted", ticket, token),
        Call(f"{op}-r", "release", since + 0.1, op, (resource,), token=token),
    ]


HISTORIES: dict[str, tuple[list[Line], str]] = {
    "one after the other": (held("a", (1, 2), 1, "src/a.py") + held("b", (3, 4), 2, "src/"), ""),
    "apart": (held("a", (1, 5), 1, "src/a.py") + held("b", (2, 4), 2, "src/b.py"), ""),
    "two who share": (held("a", (1, 5), 1, "src/", shared=True) + held("b", (2, 4), 2, "src/a.py", shared=True), ""),
    "at once": (held("a", (1, 5), 1, "src/a.py") + held("b", (2, 4), 2, "src/"), "holders"),
    "at once, one shares": (held("a", (1, 5), 1, "**/*.py", shared=True) + held("b", (2, 4), 2, "src/"), "holders"),
    "a token twice": (held("a", (1, 2), 1, "src/a.py") + held("b", (3, 4), 1, "src/b.py"), "token"),
    "a smaller token later": (held("a", (1, 2), 2, "src/a.py") + held("b", (3, 4), 1, "docs/"), "token"),
    "in order": (waited("a", (1, 3), 1, 1, "src/") + waited("b", (2, 4), 2, 2, "src/a.py"), ""),
    "out of order": (waited("a", (1, 4), 1, 2, "src/") + waited("b", (2, 3), 2, 1, "src/a.py"), "order"),
    "past one who waits": (waited("a", (1, 4), 1, 2, "src/") + held("b", (2, 3), 1, "src/a.py"), "order"),
    "two owners of one agent at once": (owned("a", (1, 5), 1, "a") + owned("b", (2, 4), 2, "b"), "holders"),
    "two owners of one agent in turn": (owned("a", (1, 2), 1, "a") + owned("b", (3, 4), 2, "b"), ""),
    "a part within its owner": (owned("a", (1, 5), 1, "a") + owned("b", (2, 4), 2, "a/b"), ""),
    "a part of another owner": (owned("a", (1, 5), 1, "a") + owned("b", (2, 4), 2, "ab/c"), "holders"),
    "an owner within its part": (owned("a", (1, 5), 1, "a/b") + owned("b", (2, 4), 2, "a"), "holders"),
    "a part within its agent": (owned("a", (1, 5), 1, "") + owned("b", (2, 4), 2, "b"), ""),
    "before the last release": (owned("a", (1, 2), 1, "a", 2) + owned("b", (2.5, 4), 2, "b"), "holders"),
    "after the last release": (owned("a", (1, 2), 1, "a", 2) + owned("b", (3.5, 4), 2, "b"), ""),
    "a deadlock": ([Call("a", "acquire", 1, "a", ("src/",)), Answer("a", 2, "40P01")], "answer"),
    "work that is gone": ([Call("a", "write", 1, "a"), Answer("a", 2, "done")], "durability"),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_is_judged(name: str) -> None:
    history, reason = HISTORIES[name]
    assert {violation.partition(":")[0] for violation in check(history, [])} == ({reason} if reason else set())


def test_a_call_without_an_answer_proves_nothing() -> None:
    history = [*held("a", (1, 5), 1, "src/a.py"), Call("b", "acquire", 2, "b", ("src/",), ttl=30)]
    assert not check(history, [])


def write(token: int, version: int) -> Access:
    return Access(f"w{version}", "deploy", writes=True, token=token, first=version - 1, last=version)


def look(token: int, first: int, last: int) -> Access:
    return Access("r", "deploy", writes=False, token=token, first=first, last=last)


@pytest.mark.parametrize(
    ("accesses", "right"),
    [
        ([write(1, 1), look(2, 1, 1), write(3, 2)], True),
        ([write(2, 1), write(1, 2)], False),
        ([write(1, 1), look(2, 0, 1)], False),
        ([write(2, 1), look(1, 1, 1)], False),
        ([write(1, 1), look(2, 0, 0)], False),
        ([write(1, 2)], False),
        ([write(1, 1), Access("w2", "deploy", writes=True, token=2, first=0, last=2)], False),
    ],
)
def test_fenced_work_is_judged(accesses: list[Access], right: bool) -> None:
    assert (not check([], accesses)) == right
