"""What deploy/ offers for watching: queries name metrics and labels that exist, and each alert says what to do.

`make operations` runs Prometheus on the same files; this needs nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from coordinator.cli.main import program
from tests.generate.docs import declared_metrics

ROOT = Path(__file__).parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
OF_PROMETHEUS = {"instance", "job", "pod"}  # labels that a scrape adds

SELECTOR = re.compile(r"\b(coordinator[\w:]*)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\b(?:by|without) \(([^)]*)\)")


def groups(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / name).read_text("utf-8"))["groups"]
    return found


RULES = [rule for group in groups("rules.yaml") for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for group in groups("alerts.yaml") for rule in group["rules"]}
RECORDED = {rule["record"]: rule["expr"] for rule in RULES}


def series() -> dict[str, set[str]]:
    """Return the labels of each series that queries may name."""
    found = {}
    for name, metric in declared_metrics().items():
        labels = {*metric.labels} | OF_PROMETHEUS
        if metric.kind == "histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[name] = labels
    for name, query in RECORDED.items():
        outer = re.match(r"[^(]*\bby \(([^)]*)\)", query)
        found[name] = set(re.findall(r"\w+", outer[1])) if outer else set()
    return found


SERIES = series()


def targets(path: Path) -> Iterator[tuple[str, str]]:
    for panel in json.loads(path.read_text("utf-8"))["panels"]:
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]


QUERIES = [*RECORDED.values(), *(rule["expr"] for rule in ALERTS.values())]
QUERIES += [query for path in DASHBOARDS for query, _ in targets(path)]


def wrong(query: str) -> list[str]:
    """Return what a query names that does not exist."""
    found = []
    labels: set[str] = set()
    for name, matchers in SELECTOR.findall(query.replace('job="coordinator"', "")):
        if name not in SERIES:
            found.append(name)
            continue
        labels |= SERIES[name]
        found += [f"{name}: {label}" for label in re.findall(r"(\w+)\s*[=!]", matchers) if label not in SERIES[name]]
    grouped = {label for listed in GROUPING.findall(query) for label in re.findall(r"\w+", listed)}
    return found + sorted(grouped - labels)


def test_names_and_labels_that_do_not_exist_are_noticed() -> None:
    assert wrong('sum by (function) (rate(coordinator_call_errors_total{sqlstate!~"ZC.*"}[5m]))') == []
    assert wrong("rate(coordinator_call_seconds[5m])") == ["coordinator_call_seconds"]
    assert wrong('coordinator_jobs{queue="q"}') == ["coordinator_jobs: queue"]
    assert wrong("sum by (queue) (coordinator_jobs)") == ["queue"]
    assert wrong("coordinator:nothing:p99") == ["coordinator:nothing:p99"]


def test_queries_name_metrics_and_labels_that_exist() -> None:
    assert len(QUERIES) > 100
    assert {query: names for query in QUERIES if (names := wrong(query))} == {}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_one_that_grafana_can_import(path: Path) -> None:
    board = json.loads(path.read_text("utf-8"))
    assert board["uid"] == f"coordinator-{path.stem}"
    assert [panel["id"] for panel in board["panels"]] == list(range(1, len(board["panels"]) + 1))
    variables = {one["name"] for one in board["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert re.findall(r"\$\{(\w+)\}", json.dumps(panel["datasource"])) == [*variables]
        assert panel["title"]
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in covered) < 24
        assert not taken & covered, f"{panel['title']} lies over another panel"
        taken |= covered
    for query, legend in targets(path):
        shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
        assert shown <= {label for name, _ in SELECTOR.findall(query) for label in SERIES[name]}, query


def test_there_are_dashboards_for_the_overview_locks_jobs_and_the_database() -> None:
    assert [path.stem for path in DASHBOARDS] == ["database", "jobs", "locks", "overview"]


def test_dashboards_and_rules_show_every_metric_that_the_leader_samples() -> None:
    named = {name for query in QUERIES for name, _ in SELECTOR.findall(query)}
    sampled = {
        name + ("_bucket" if metric.kind == "histogram" else "")
        for name, metric in declared_metrics().items()
        if metric.sampler
    }
    assert sampled - named == {"coordinator_processes"}


def test_each_alert_has_an_entry_that_says_what_it_means_and_what_to_do() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text("utf-8")
    entries = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert [*entries] == [*ALERTS]
    for name, entry in entries.items():
        rule = ALERTS[name]
        head, meaning, remedy = entry.strip().split("\n\n")
        assert head == f"*{rule['labels']['severity']}*, after {rule['for']}: `{rule['expr']}`"
        assert min(len(meaning), len(remedy)) > 20
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"


def test_functions_settings_and_commands_that_the_entries_name_exist() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text("utf-8")
    quoted = re.findall(r"`([^`]+)`", text)
    metrics = {name for one in quoted for name in re.findall(r"\bcoordinator_\w+", one)}
    assert metrics - SERIES.keys() == set()
    commands = {one.split()[1] for one in quoted if one.startswith("coordinator ")}
    assert commands - {*program.list_commands(click.Context(program))} == set()
