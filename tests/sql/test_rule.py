from __future__ import annotations

import pytest

from coordinator.operations import projects, rules, signals
from tests.conftest import Transaction
from tests.sql.refusal import refused


async def keys(tx: Transaction, project: str = "default") -> list[str]:
    return [signal.key for signal in await tx.run(signals.List(project=project))]


async def set_all(tx: Transaction, *names: str, project: str = "default") -> None:
    for name in names:
        await tx.run(signals.Set(project=project, key=name, value=True))


async def test_the_default_rule_is_there_for_all_projects(tx: Transaction) -> None:
    (rule,) = await tx.run(rules.List(project="default"))
    assert (rule.project, rule.when_set, rule.clears) == (None, "REJECTED", ["COMPLETED", "QA_PASSED"])


async def test_a_custom_rule_clears_only_keys_next_to_the_one_that_is_set(tx: Transaction) -> None:
    await tx.run(rules.Set(project="default", when_set="STARTED", clears=["IDLE"]))
    await set_all(tx, "w/1/IDLE", "w/2/IDLE", "IDLE", "w/1/STARTED")
    assert await keys(tx) == ["IDLE", "w/1/STARTED", "w/2/IDLE"]


async def test_a_rule_works_at_the_root_too(tx: Transaction) -> None:
    await set_all(tx, "COMPLETED", "x/COMPLETED", "REJECTED")
    assert await keys(tx) == ["REJECTED", "x/COMPLETED"]


async def test_only_a_whole_last_segment_triggers_a_rule(tx: Transaction) -> None:
    await set_all(tx, "a/COMPLETED", "a/NOT_REJECTED", "a/REJECTED/x")
    assert await keys(tx) == ["a/COMPLETED", "a/NOT_REJECTED", "a/REJECTED/x"]


async def test_a_projects_own_rule_goes_before_the_one_for_all(tx: Transaction) -> None:
    await tx.run(rules.Set(project="default", when_set="REJECTED", clears=["OTHER"]))
    await set_all(tx, "COMPLETED", "OTHER", "REJECTED")
    assert await keys(tx) == ["COMPLETED", "REJECTED"]
    await tx.run(rules.Delete(project="default", when_set="REJECTED"))
    await set_all(tx, "REJECTED")
    assert await keys(tx) == ["REJECTED"]


async def test_a_rule_holds_in_its_project_only_unless_it_is_for_everywhere(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))
    await tx.run(rules.Set(project="default", when_set="A", clears=["X"]))
    await set_all(tx, "X", "A", project="p")
    assert await keys(tx, "p") == ["A", "X"]
    await tx.run(rules.Set(project="default", when_set="A", clears=["X"], everywhere=True))
    await set_all(tx, "A", project="p")
    assert await keys(tx, "p") == ["A"]


async def test_setting_a_rule_again_replaces_it(tx: Transaction) -> None:
    for clears in (["B"], ["C", "D"]):
        await tx.run(rules.Set(project="default", when_set="A", clears=clears))
    assert [rule.clears for rule in await tx.run(rules.List(project="default")) if rule.when_set == "A"] == [["C", "D"]]


async def test_a_rule_that_names_its_own_trigger_does_not_clear_it(tx: Transaction) -> None:
    await tx.run(rules.Set(project="default", when_set="A", clears=["A", "B"]))
    await set_all(tx, "B", "A")
    assert await keys(tx) == ["A"]


async def test_a_rule_clears_critical_signals_too(tx: Transaction) -> None:
    await tx.run(signals.Set(project="default", key="COMPLETED", value=1, critical=True))
    await set_all(tx, "REJECTED")
    assert await keys(tx) == ["REJECTED"]


async def test_a_set_that_loses_its_compare_and_set_clears_nothing(tx: Transaction) -> None:
    await set_all(tx, "REJECTED", "COMPLETED")
    await refused(tx, signals.Set(project="default", key="REJECTED", value=1, expect=0), "ZC301")
    assert await keys(tx) == ["COMPLETED", "REJECTED"]


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (rules.Set(project="default", when_set="A", clears=[]), "ZC101"),
        (rules.Set(project="default", when_set="", clears=["B"]), "ZC101"),
        (rules.Set(project="default", when_set="a/B", clears=["C"]), "ZC103"),
        (rules.Set(project="default", when_set="A", clears=["b/C"]), "ZC103"),
        (rules.Set(project="default", when_set="A", clears=[""]), "ZC101"),
        (rules.Set(project="default", when_set="A\n", clears=["B"]), "ZC103"),
        (rules.Delete(project="default", when_set="NONE"), "ZC205"),
        (rules.Delete(project="default", when_set="REJECTED"), "ZC205"),
    ],
)
async def test_bad_rules_are_refused(tx: Transaction, operation: object, code: str) -> None:
    await refused(tx, operation, code)  # type: ignore[arg-type]


async def test_the_default_rule_can_be_deleted_when_one_says_everywhere(tx: Transaction) -> None:
    assert await tx.run(rules.Delete(project="default", when_set="REJECTED", everywhere=True))
    assert await tx.run(rules.List(project="default")) == []


async def test_a_null_everywhere_in_sql_means_this_project(tx: Transaction) -> None:
    row = await tx.connection.fetchrow("select * from coordinator.rule_set('default', 'A', '{B}', null)")
    assert row["project"] == "default"
    await tx.connection.execute("select coordinator.rule_delete('default', 'A', null)")
    assert [rule.when_set for rule in await tx.run(rules.List(project="default"))] == ["REJECTED"]
