"""What a lock's text means, and when two overlap: against brute force over generated paths."""

from __future__ import annotations

import itertools
import re
from functools import cache
from random import Random

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coordinator.errors import Conflict, InvalidArgument
from coordinator.operations import agents, locks
from tests.conftest import Transaction

SEGMENTS = ["a", "b", "ab", "a.py", "[a", "[ab]", "[a-b]x"]
PATHS = ["/".join(parts) for n in (1, 2, 3) for parts in itertools.product(SEGMENTS, repeat=n)]

path_segments = st.sampled_from(SEGMENTS)
glob_segments = st.one_of(
    path_segments.filter(lambda s: "[" not in s),
    st.sampled_from(
        ["*", "**", "?", "*.py", "a*", "*b", "[ab]", "[!a]", "[a-b]*", "[[]a", "?.p?", "*a*", "a?*b", "??"]
    ),
)
literal = st.lists(path_segments, min_size=1, max_size=3).map("/".join)
resources = st.one_of(
    literal.map(lambda p: "path:" + p),
    literal.map(lambda p: "path:" + p + "/"),
    st.lists(glob_segments, min_size=1, max_size=4).map("/".join).filter(lambda g: re.search(r"[*?\[]", g)),
)


def segment_regex(segment: str) -> str:
    out, i = "", 0
    while i < len(segment):
        if segment[i] == "*":
            out += "[^/]*"
        elif segment[i] == "?":
            out += "[^/]"
        elif segment[i] == "[":
            end = segment.index("]", i + 2)
            body = segment[i + 1 : end]
            out += "[" + ("^/" + body[1:] if body[0] in "!^" else body.replace("[", "\\[")) + "]"
            i = end
        else:
            out += re.escape(segment[i])
        i += 1
    return out


@cache
def fits(segment: str, name: str) -> bool:
    regexes = segment_regex(segment), segment_regex(segment.replace("[", "[[]"))  # classes, or brackets
    return any(re.fullmatch(regex, name) for regex in regexes)


def matches(pattern: list[str], path: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(matches(pattern[1:], path[n:]) for n in range(len(path) + 1))
    return bool(path) and fits(pattern[0], path[0]) and matches(pattern[1:], path[1:])


def names(resource: str) -> set[str]:
    """Which of PATHS a resource includes."""
    if resource.startswith("path:"):
        path = resource[5:]
        if path.endswith("/"):
            return {p for p in PATHS if p == path[:-1] or p.startswith(path)}
        return {path} & set(PATHS)
    return {p for p in PATHS if matches(resource.split("/"), p.split("/"))}


OVERLAPPING = """
with project as (select id from coordinator.projects where name = 'default')
select l.resource from project, coordinator.lock_overlapping(project.id, coordinator.lock_parse($1), false) l
"""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(held=["**/**"], wanted="path:a")
@example(held=["a/**/**/b"], wanted="path:a/b")
@given(held=st.lists(resources, min_size=1, max_size=6), wanted=resources)
def test_whatever_shares_a_path_overlaps_both_ways(held: list[str], wanted: str, loop_tx: object) -> None:
    run, tx = loop_tx  # type: ignore[misc]
    run(overlap_case(tx, held, wanted))


async def overlap_case(tx: Transaction, held: list[str], wanted: str) -> None:
    async with tx.connection.transaction():
        save = tx.connection.transaction()
        await save.start()
        agent = await tx.run(agents.Register(project="default", name="a"))
        texts = {}
        for resource in held:
            (grant,) = await tx.run(locks.Acquire(project="default", resources=[resource], agent=agent.id))
            texts[resource] = grant.resource
            again = await tx.connection.fetchval("select (coordinator.lock_parse($1)).resource", grant.resource)
            assert again == grant.resource
        rows = [row[0] for row in await tx.connection.fetch(OVERLAPPING, wanted)]
        assert len(rows) == len(set(rows))
        want = names(wanted)
        for resource, text in texts.items():
            if names(resource) & want:
                assert text in rows, (resource, wanted)
            elif resource.startswith("path:") and wanted.startswith("path:"):
                assert text not in rows, (resource, wanted)
            elif resource.startswith("path:") and not resource.endswith("/"):
                assert (text in rows) == matches(wanted.split("/"), resource[5:].split("/"))
        await save.rollback()


@pytest.fixture
def loop_tx(shared_url: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """A connection and the event loop it lives in, for tests that Hypothesis calls many times."""
    import asyncio

    from coordinator.db.connection import connect

    with asyncio.Runner() as runner:
        connection: asyncpg.Connection = runner.run(connect(shared_url))
        yield runner.run, Transaction(connection)
        runner.run(connection.close())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=st.lists(glob_segments, min_size=1, max_size=4), b=st.lists(glob_segments, min_size=1, max_size=4))
def test_two_globs_that_match_one_path_are_never_said_to_be_apart(a: list[str], b: list[str], loop_tx: object) -> None:
    run, tx = loop_tx  # type: ignore[misc]
    common = [p for p in PATHS if matches(a, p.split("/")) and matches(b, p.split("/"))]
    meet = run(tx.connection.fetchval("select coordinator.lock_globs_meet($1, $2)", "/".join(a), "/".join(b)))
    assert meet or not common, common[:3]


@pytest.mark.parametrize(
    ("a", "b", "meet"),
    [
        ("src/*.py", "src/*.js", False),
        ("src/*.py", "src/a*", True),
        ("src/**", "docs/**", False),
        ("src/**/*.py", "src/x/y/z.py", True),
        ("**/test_*.py", "src/**", True),
        ("*/a", "a/*/a", False),
        ("a?c", "ab", False),
        ("a[bc]d", "a[!b]d", True),
        ("a[bc]d", "aedf", False),
        ("a[bc]d", "xed", False),
        ("app/[id]/*.ts", "app/[[]id]/x*", True),
        ("a/**/b/**/c", "a/x/y?/c", False),
        ("a/**/b/**/c", "a/x/?/?/c", True),
        ("a/**/b/c/**", "a/?/b/x/d", False),
        ("??x*", "?y", False),
        ("a?c*", "?b*d", True),
        ("**", "x", True),
        ("a/**/b", "a/b", True),
        ("*a*b*c*", "*c*b*a*", True),
    ],
)
async def test_disjoint_globs_are_reported_as_disjoint(tx: Transaction, a: str, b: str, meet: bool) -> None:
    query = "select coordinator.lock_globs_meet($1, $2), coordinator.lock_globs_meet($2, $1)"
    assert tuple(await tx.connection.fetchrow(query, a, b)) == (meet, meet)


letters = st.text("a[]!-*?^\\./é", min_size=1, max_size=12)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text="app/[slug]/page.tsx", directory="app/[slug]/")
@example(text="app/[...slug]/[[...id]].ts", directory="app/")
@example(text="a/[!x]/*", directory="a/[!x]/")
@example(text="src/**/x", directory="src/")
@example(text="src/*/", directory="src/*/")
@given(text=letters, directory=st.none())
def test_whoever_locks_a_text_finds_it_locked(text: str, directory: str | None, loop_tx: object) -> None:
    run, tx = loop_tx  # type: ignore[misc]
    run(text_case(tx, text, directory))


async def text_case(tx: Transaction, text: str, directory: str | None) -> None:
    """Lock a text; another agent finds the text, its literal path and its directory locked, and can lock none of them."""
    outer = tx.connection.transaction()
    await outer.start()
    try:
        one, two = [(await tx.run(agents.Register(project="default", name=name))).id for name in "ab"]
        try:
            await tx.run(locks.Acquire(project="default", resources=[text], agent=one))
        except InvalidArgument:
            return
        literal = text if text.startswith("path:") else f"path:{text}"
        spellings = [text, literal, *([directory] if directory else [])]
        checks = await tx.run(locks.Check(project="default", paths=spellings, agent=two))
        assert [check.state for check in checks] == ["held"] * len(spellings)
        assert await tx.run(locks.Show(project="default", resource=literal))
        for spelling in spellings:
            with pytest.raises(Conflict):
                async with tx.connection.transaction():
                    await tx.run(locks.Acquire(project="default", resources=[spelling], agent=two))
    finally:
        await outer.rollback()


async def test_a_check_of_many_paths_finds_what_a_check_of_each_finds(tx: Transaction, seed: int) -> None:
    random = Random(seed)
    one, two = [(await tx.run(agents.Register(project="default", name=name))).id for name in "ab"]
    held = ["a/*.py", "a/**/b", "[ab]/b", "path:b/", "*/*/a", "path:[ab]/[a", "b/**/a*", "name:x"]
    for n, resource in enumerate(held):
        await tx.run(locks.Acquire(project="default", resources=[resource], agent=(one, two)[n % 2], shared=True))
    asked = [f"path:{path}{random.choice(('', '/'))}" for path in random.sample(PATHS, 100)] + [
        "name:x",
        "glob:**",
        "glob:a/?",
    ]
    together = await tx.run(locks.Check(project="default", paths=asked, agent=two))
    assert together == [(await tx.run(locks.Check(project="default", paths=[path], agent=two)))[0] for path in asked]
    assert {check.state for check in together} == {"free", "mine", "held"}
    for check in together:
        rows = [row[0] for row in await tx.connection.fetch(OVERLAPPING, check.path)]
        assert (check.resource in rows) if rows else (check.state == "free")


@pytest.mark.parametrize(
    ("text", "resource", "kind"),
    [
        ("./src/a.py", "src/a.py", "path"),
        ("src/", "src/", "directory"),
        (".github/", ".github/", "directory"),
        ("name:deploy", "name:deploy", "name"),
        ("path:app/[id]/x", "path:app/[id]/x", "path"),
        ("path:src/a.py", "src/a.py", "path"),
        ("path:name:x", "path:name:x", "path"),
        ("./name:x", "path:name:x", "path"),
        ("src/*/", "src/*/**", "glob"),
        ("a/**/**/b", "a/**/b", "glob"),
        ("glob:src/a.py", "src/a.py", "path"),
        ("ä/ö.py", "ä/ö.py", "path"),
        ("a b/c (1).txt", "a b/c (1).txt", "path"),
    ],
)
async def test_each_has_one_spelling(tx: Transaction, text: str, resource: str, kind: str) -> None:
    found = await tx.connection.fetchrow("select * from coordinator.lock_parse($1)", text)
    assert (found["resource"], found["kind"]) == (resource, kind)


@pytest.mark.parametrize(
    "text",
    ["", ".", "./", "/", "/etc/passwd", "../x", "a/../b", "a/..", "a//b", "a/./b", "a\\b", "a\nb", "a\x00b", "x" * 1025,
     "ä" * 600, "/".join("a" * 33), "src/[ab", "src/**.py", "a**", "[z-a]", "name:", "path:", "glob:", " a"],
)  # fmt: skip
async def test_a_malformed_resource_is_rejected_with_a_hint_and_changes_nothing(tx: Transaction, text: str) -> None:
    agent = await tx.run(agents.Register(project="default", name="a"))
    before = await tx.events()
    with pytest.raises(InvalidArgument) as raised:
        await tx.run(locks.Acquire(project="default", resources=["ok.py", text], agent=agent.id))
    assert raised.value.hint
    assert await tx.events() == before
    assert await tx.run(locks.List(project="default")) == []


async def test_a_file_and_the_directory_over_it_overlap_and_siblings_do_not(tx: Transaction) -> None:
    query = "select l.resource from coordinator.projects p, coordinator.lock_overlapping(p.id, coordinator.lock_parse($1), false) l where p.name = 'default'"
    agent = await tx.run(agents.Register(project="default", name="a"))
    for resource in ("src/a.py", "src/b/", "src-old/a.py", "src0", "docs/*.md"):
        await tx.run(locks.Acquire(project="default", resources=[resource], agent=agent.id))

    async def overlapping(text: str) -> set[str]:
        return {row[0] for row in await tx.connection.fetch(query, text)}

    assert await overlapping("src/") == {"src/a.py", "src/b/"}
    assert await overlapping("src/b/c/d.py") == {"src/b/"}
    assert await overlapping("src/b") == {"src/b/"}
    assert await overlapping("src/c.py") == set()
    assert await overlapping("docs/") == {"docs/*.md"}
    assert await overlapping("docs/x.md") == {"docs/*.md"}
    assert await overlapping("docs/x/y.md") == set()
    assert await overlapping("**") == {"src/a.py", "src/b/", "src-old/a.py", "src0", "docs/*.md"}
