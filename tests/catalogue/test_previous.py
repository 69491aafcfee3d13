"""This schema serves the previous release, as sql/README.md says: what that one uses is still there, with the same meaning of each place."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.generate.previous import (
    PREVIOUS,
    ROOT,
    HistoryMissing,
    contract,
    digest,
    migrations,
    text_of,
    unpack,
    version_of,
)

LADDER = ("reader", "agent", "manager", "admin", None)  # None: the daemon alone
# What takes something away from those who use it. Functions are compared by name.
CONTRACTS = re.compile(
    r"\bdrop (table|view|column|type|sequence)\b|\brename (column|to|constraint)\b|\brename \w+ to\b|\balter column \w+ (set data )?type\b"
    r"|\bset not null\b|\bdrop default\b",
    re.IGNORECASE,
)
DROPPED = re.compile(r"\bdrop (?:function|procedure) (?:if exists )?coordinator\.(\w+)", re.IGNORECASE)
RAISED = re.compile(r"^update coordinator\.schema_compatibility set oldest = \d+;", re.MULTILINE)

Facts = dict[str, Any]


def known() -> Facts:
    facts: Facts = json.loads(PREVIOUS.read_text("utf-8"))
    return facts


def lost(before: list[str], after: list[str]) -> str | None:
    """Return what is no longer at the beginning, in its place."""
    for place, entry in enumerate(before):
        if place >= len(after) or after[place] != entry:
            return f"{entry} (now {after[place] if place < len(after) else 'nothing'})"
    return None


def broken(previous: Facts, present: Facts) -> list[str]:
    """Return what the previous release uses and this schema does not keep."""
    found = []
    for name, was in previous["functions"].items():
        now = present["functions"].get(name)
        if now is None:
            found.append(f"{name} is gone")
            continue
        kept = [
            # A parameter may become optional.
            after if after == f"{before} default" else before
            for before, after in zip(was["parameters"], now["parameters"], strict=False)
        ] + was["parameters"][len(now["parameters"]) :]
        if entry := lost(kept, now["parameters"]):
            found.append(f"{name} lost its parameter {entry}")
        elif required := [p for p in now["parameters"][len(kept) :] if not p.endswith(" default")]:
            found.append(f"{name} requires {required[0]}")
        if (was["kind"], was["result"]) != (now["kind"], now["result"]):
            found.append(f"{name} returns {now['result']}, not {was['result']}")
        elif entry := lost(was["columns"], now["columns"]):
            found.append(f"{name} lost its column {entry}")
        if LADDER.index(now["role"]) > LADDER.index(was["role"]):
            found.append(f"{name} needs the role {now['role']}, not {was['role']}")
    for name, columns in previous["relations"].items():
        if name not in present["relations"]:
            found.append(f"{name} is gone")
        elif entry := lost(columns, present["relations"][name]):
            found.append(f"{name} lost its column {entry}")
    for name, data in previous["events"].items():
        gone = set(data) - set(present["events"].get(name, []))
        if name not in present["events"] or gone:
            found.append(f"the event {name} lost {', '.join(sorted(gone)) or 'its type'}")
    return found


async def all_of(catalogue: asyncpg.Connection) -> Facts:
    """Return the facts of everything that there is, whether this program uses it or not."""
    return await contract(catalogue, text_of(ROOT / "sql", "sql"))


async def test_what_the_previous_release_uses_is_still_there(catalogue: asyncpg.Connection) -> None:
    assert broken(known(), await all_of(catalogue)) == [], "see the rules in sql/README.md, Releases"


async def test_this_release_comes_after_the_previous_one() -> None:
    """Else neither of two programs whose functions differ is the newer one, and each applies its own."""
    previous = known()
    assert previous["migration"] in migrations(ROOT), "a migration of the previous release was renamed or removed"
    if digest(ROOT) != previous["functions_sha256"]:
        newer = migrations(ROOT)[-1] > previous["migration"] or version_of(ROOT) != previous["version"]
        assert newer, "functions have changed: add a migration, or raise the version"


async def test_a_migration_that_removes_something_says_which_programs_it_no_longer_serves(
    catalogue: asyncpg.Connection,
) -> None:
    present = (await all_of(catalogue))["functions"]
    silent = []
    for name in migrations(ROOT):
        if name > known()["migration"]:
            text = re.sub(r"--.*", "", (ROOT / "sql" / "migrations" / name).read_text("utf-8"))
            gone = [function for function in DROPPED.findall(text) if function not in present]
            if (gone or CONTRACTS.search(text)) and not RAISED.search(text):
                silent.append(name)
    assert silent == []


# ------------------------------------------------------------------------------------------- what the comparison finds

BEFORE: Facts = {
    "functions": {
        "note_add": {
            "kind": "function",
            "parameters": ["p_a text", "p_b bigint default"],
            "result": "rows",
            "columns": ["x text", "y text"],
            "role": "agent",
        }
    },
    "relations": {"notes": ["a text", "b text"]},
    "events": {"note.added": ["a", "b"]},
}


def note(change: Callable[[Facts], object]) -> Callable[[Facts], object]:
    return lambda facts: change(facts["functions"]["note_add"])


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts["functions"].pop("note_add"),
        note(lambda f: f["parameters"].pop()),
        note(lambda f: f["parameters"].reverse()),
        note(lambda f: f["parameters"].insert(0, "p_c text default")),
        note(lambda f: f["parameters"].append("p_c text")),
        note(lambda f: f["parameters"].__setitem__(1, "p_b bigint")),
        note(lambda f: f["parameters"].__setitem__(1, "p_b integer default")),
        note(lambda f: f["parameters"].__setitem__(0, "p_z text")),
        note(lambda f: f.update(result="text")),
        note(lambda f: f.update(kind="procedure")),
        note(lambda f: f.update(role="manager")),
        note(lambda f: f.update(role=None)),
        note(lambda f: f["columns"].pop()),
        note(lambda f: f["columns"].insert(0, "z text")),
        lambda facts: facts["relations"].pop("notes"),
        lambda facts: facts["relations"]["notes"].pop(),
        lambda facts: facts["relations"]["notes"].__setitem__(1, "b bigint"),
        lambda facts: facts["relations"]["notes"].insert(1, "c text"),
        lambda facts: facts["events"].pop("note.added"),
        lambda facts: facts["events"]["note.added"].pop(),
    ],
)
def test_each_change_that_breaks_the_previous_release_is_found(change: Callable[[Facts], object]) -> None:
    after = copy.deepcopy(BEFORE)
    change(after)
    assert len(broken(BEFORE, after)) == 1


def test_a_clone_without_the_history_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HistoryMissing, match=r"(?s)0{40}.*git fetch --unshallow"):
        unpack("0" * 40, tmp_path)


def test_what_is_added_at_the_end_breaks_nothing() -> None:
    after = copy.deepcopy(BEFORE)
    function = after["functions"]["note_add"]
    function["parameters"][0] += " default"
    function["parameters"].append("p_c text default")
    function["columns"].append("z text")
    function["role"] = "reader"
    after["functions"]["note_drop"] = function
    after["relations"]["notes"].append("c text")
    after["events"]["note.added"].append("c")
    assert broken(BEFORE, after) == []


@pytest.mark.parametrize(
    "statement",
    [
        "alter table coordinator.x drop column y;",
        "alter table coordinator.x alter column y type text;",
        "alter table coordinator.x alter column y set not null;",
        "alter table coordinator.x rename y to z;",
        "alter table coordinator.x rename to z;",
        "drop table coordinator.x;",
        "drop view if exists coordinator.x;",
    ],
)
def test_each_statement_that_removes_something_is_recognised(statement: str) -> None:
    assert CONTRACTS.search(statement)
