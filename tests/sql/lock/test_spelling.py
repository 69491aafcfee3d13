"""Two spellings of one path, under the rules that a project can have for paths."""

from __future__ import annotations

import pytest

from coordinator.operations import agents, locks, projects
from tests.conftest import Transaction
from tests.sql.refusal import refused

COMPOSED, DECOMPOSED = "src/caf\u00e9.py", "src/cafe\u0301.py"


@pytest.mark.parametrize(
    ("rule", "one", "other", "equal"),
    [
        ("normal", COMPOSED, DECOMPOSED, True),
        ("normal", "name:\u00e9", "name:e\u0301", True),
        ("normal", "src/\u00e9/", DECOMPOSED.replace("src", "src/e\u0301"), True),
        ("normal", "src/*\u00e9.py", DECOMPOSED, True),
        ("normal", "README.md", "readme.md", False),
        ("exact", COMPOSED, DECOMPOSED, False),
        ("exact", "README.md", "readme.md", False),
        ("caseless", COMPOSED, DECOMPOSED, True),
        ("caseless", "README.md", "readme.md", True),
        ("caseless", "Src/", "src/A.py", True),
        ("caseless", "SRC/*.PY", "src/a.py", True),
        ("caseless", "PATH:x", "path:path:x", True),
        ("caseless", "name:A", "name:a", False),
    ],
)
async def test_two_spellings_are_one_path_by_the_rule_of_the_project(
    tx: Transaction, rule: str, one: str, other: str, equal: bool
) -> None:
    await tx.run(projects.Set(project="default", paths=rule))
    first, second = [(await tx.run(agents.Register(project="default", name=name))).id for name in "ab"]
    for held, wanted in ((one, other), (other, one)):
        if "*" in wanted:  # a check takes it literally
            continue
        (grant,) = await tx.run(locks.Acquire(project="default", resources=[held], agent=first))
        token = grant.fencing_token or 0
        (check,) = await tx.run(locks.Check(project="default", paths=[wanted], agent=second))
        assert (check.path, check.state) == (wanted, "held" if equal else "free")
        assert bool(await tx.run(locks.List(project="default", under=wanted))) or not equal or ":" in wanted
        if equal:
            await refused(tx, locks.Acquire(project="default", resources=[wanted], agent=second), "ZC310")
            assert await tx.run(locks.Show(project="default", resource=wanted))
        await tx.connection.execute("select coordinator.assert_fence('default', $1, $2)", held, token)
        await tx.run(locks.Renew(project="default", resources=[held], agent=first, tokens=[token]))
        assert await tx.run(locks.Release(project="default", resources=[held], agent=first, tokens=[token])) == 1


async def test_the_rule_for_paths_changes_only_while_no_path_is_locked(tx: Transaction) -> None:
    agent = (await tx.run(agents.Register(project="default", name="a"))).id
    await tx.run(locks.Acquire(project="default", resources=["name:x"], agent=agent))
    assert (await tx.run(projects.Set(project="default", paths="caseless"))).paths == "caseless"
    await tx.run(locks.Acquire(project="default", resources=["README.md"], agent=agent))
    await refused(tx, projects.Set(project="default", paths="exact"), "ZC316")
    await tx.run(projects.Set(project="default", paths="caseless"))  # changes nothing
    await refused(tx, projects.Set(project="default", paths="Exact"), "ZC105")
    assert (await tx.run(projects.Show(project="default"))).paths == "caseless"
    changed = [event["data"] for event in await tx.events() if event["type"] == "project.changed"]
    assert changed == [{"fields": ["paths"], "paths": "caseless"}]
