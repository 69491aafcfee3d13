from __future__ import annotations

from datetime import timedelta

import pytest

from coordinator.model.retention import RetentionPolicy
from coordinator.operations import projects, retentions
from tests.conftest import Transaction
from tests.sql.refusal import refused

P = "default"
DAY = timedelta(days=1)


async def shown(tx: Transaction, project: str = P) -> dict[tuple[str, str], RetentionPolicy]:
    return {(row.subject, row.kind): row for row in await tx.run(retentions.Show(project=project))}


async def bounds(tx: Transaction, kind: str, project: str = P) -> tuple[timedelta | None, int | None]:
    row = await tx.connection.fetchrow(
        "select r.max_age, r.max_count from coordinator.projects p, coordinator.retention_of(p.id, 'log', $1) r where p.name = $2",
        kind,
        project,
    )
    return tuple(row)


async def test_retention_is_on_by_default(tx: Transaction) -> None:
    found = {key: (row.max_age, row.max_count) for key, row in (await shown(tx)).items()}
    assert found == {
        ("log", "*"): (None, None),
        ("log", "audit"): (365 * DAY, None),
        ("log", "message"): (None, None),
        ("log", "observation"): (7 * DAY, 10_000),
        ("log", "step"): (30 * DAY, None),
        ("document", "*"): (7 * DAY, 10),
        ("session", "*"): (90 * DAY, None),
        ("artifact", "*"): (None, None),
    }


async def test_a_projects_own_policy_precedes_and_a_kinds_own_precedes_that_of_all_kinds(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))

    async def set_(kind: str, count: int, *, everywhere: bool = False) -> None:
        await tx.run(retentions.Set(project=P, subject="log", kind=kind, max_count=count, everywhere=everywhere))

    assert await bounds(tx, "notes") == (None, None)
    await set_("*", 1, everywhere=True)
    assert await bounds(tx, "notes") == (None, 1) == await bounds(tx, "notes", "p")
    await set_("*", 2)
    assert (await bounds(tx, "notes"), await bounds(tx, "notes", "p")) == ((None, 2), (None, 1))
    await set_("notes", 3, everywhere=True)
    assert await bounds(tx, "notes") == (None, 3)
    await set_("notes", 4)
    assert (await bounds(tx, "notes"), await bounds(tx, "notes", "p")) == ((None, 4), (None, 3))
    assert await bounds(tx, "message") == (None, None)


async def test_a_policy_is_whole_and_an_omitted_bound_does_not_apply(tx: Transaction) -> None:
    policy = await tx.run(retentions.Set(project=P, subject="log", kind="observation", max_age=DAY, actor="boss"))
    assert (policy.project, policy.max_age, policy.max_count, policy.actor) == (P, DAY, None, "boss")
    assert (await shown(tx))["log", "observation"] == policy
    policy = await tx.run(retentions.Set(project=P, subject="log", kind="observation", max_count=5))
    assert (policy.max_age, policy.max_count) == (None, 5)


async def test_a_reset_brings_back_the_policy_of_all_projects_and_its_default(tx: Transaction) -> None:
    for everywhere in (True, False):
        await tx.run(
            retentions.Set(project=P, subject="session", max_age=DAY * (2 - everywhere), everywhere=everywhere)
        )
    assert (await tx.run(retentions.Reset(project=P, subject="session"))).max_age == DAY
    assert (await tx.run(retentions.Reset(project=P, subject="session"))).max_age == DAY
    policy = await tx.run(retentions.Reset(project=P, subject="session", everywhere=True))
    assert (policy.project, policy.max_age) == (None, 90 * DAY)


async def test_a_reset_of_an_own_kind_brings_back_the_policy_of_all_kinds(tx: Transaction) -> None:
    await tx.run(retentions.Set(project=P, subject="document", kind="plan", max_count=3, everywhere=True))
    policy = await tx.run(retentions.Reset(project=P, subject="document", kind="plan", everywhere=True))
    assert (policy.kind, policy.max_count) == ("*", 10)
    assert ("document", "plan") not in await shown(tx)


async def test_a_deleted_project_leaves_no_policy(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))
    await tx.run(retentions.Set(project="p", subject="log", kind="a"))
    await tx.run(projects.Delete(project="p"))
    for table in ("retention", "retention_sweeps"):
        assert (
            await tx.connection.fetchval(f"select count(*) from coordinator.{table} where project_id is not null") == 0
        )


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (retentions.Set(project=P, subject="log", kind="a", max_age=-DAY), "ZC104"),
        (retentions.Set(project=P, subject="log", kind="a", max_age=timedelta(0)), "ZC104"),
        (retentions.Set(project=P, subject="log", kind="a", max_count=-1), "ZC104"),
        (retentions.Set(project=P, subject="log", kind="a", max_count=0), "ZC104"),
        (retentions.Set(project=P, subject="session", max_count=5), "ZC105"),
        (retentions.Set(project=P, subject="session", kind="a", max_age=DAY), "ZC105"),
        (retentions.Set(project=P, subject="artifact", max_count=5), "ZC105"),
        (retentions.Set(project=P, subject="artifact", kind="a", max_age=DAY), "ZC105"),
        (retentions.Set(project=P, subject="signal", kind="a"), "ZC105"),
        (retentions.Set(project=P, subject="log", kind="A b"), "ZC103"),
        (retentions.Set(project=P, subject="log", kind=""), "ZC103"),
        (retentions.Reset(project=P, subject="logs", kind="a"), "ZC105"),
        (retentions.Show(project="nowhere"), "ZC201"),
    ],
)
async def test_a_bad_policy_is_refused_and_changes_nothing(tx: Transaction, operation: object, code: str) -> None:
    before = await shown(tx)
    error = await refused(tx, operation, code)  # type: ignore[arg-type]
    assert error.hint
    assert await shown(tx) == before
