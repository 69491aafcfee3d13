"""The list in ARCHITECTURE.md of the files that a new noun needs is complete: a noun that follows it works on every floor."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOUN = Path(__file__).parent / "new_noun"
NOUN_FILES_MAX = 20
VERB_FILES_MAX = 6

# file → the lines that go into it: (after this line, this line)
ADDED: dict[str, list[tuple[str, str]]] = {
    "sql/functions/order.txt": [("rule.sql", "note.sql")],
    "sql/functions/process.sql": [
        (
            "    case when exists (select from coordinator.signals where expires_at <= v_now) then 'signal_expire' end,",
            "    case when exists (select from coordinator.notes where expires_at <= v_now) then 'note_expire' end,",
        )
    ],
    "coordinator/loops/table.py": [
        ("        Loop(signals.Expire()),", "        Loop(notes.Expire()),"),
        (
            "from coordinator.operations.work import SampleMetrics, SizesMeasure, TablesAnalyze",
            "from coordinator.operations import notes",
        ),
    ],
    "coordinator/client/connection.py": [
        ("        self.rules = Rules(caller)", "        self.notes = Notes(caller)"),
        ("from coordinator.client.locks import Locks", "from coordinator.client.notes import Notes"),
    ],
    "CHANGELOG.md": [("### Added", "- Notes: short texts that agents leave for each other.")],
}
# Prose, where the noun has something to say there, and what a foreign key does for most nouns.
OPTIONAL = {"README.md", "sql/README.md", "sql/functions/project.sql"}
SEE_EVERY_NOUN = [
    "tests/catalogue",
    *(
        f"tests/cli/test_help.py::{test}"
        for test in (
            "test_a_verb_has_help_and_examples_that_parse",
            "test_80_columns_show_every_summary_whole",
            "test_80_columns_show_the_help_of_every_verb_whole",
            "test_every_noun_follows_the_pattern",
        )
    ),
    "tests/sql/test_access.py",
    "tests/sql/test_pages.py",
    "tests/sql/test_values.py::test_every_function_that_takes_json_is_under_test",
    "tests/api/test_access.py::test_no_operation_reaches_the_project_of_others",
    "tests/api/test_operations.py::test_every_list_has_the_same_cursor_and_limit",
]


def listed(title: str) -> set[str]:
    """Return the paths in the table of a section, with the noun in them."""
    section = (ROOT / "ARCHITECTURE.md").read_text("utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    return {path.replace("<noun>", "note") for path in re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)}


def scratch_copy(folder: Path) -> list[str]:
    """Copy the checkout, add the noun, and return the paths that it needed."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_file() and NOUN not in source.parents:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    touched = []
    for source in sorted(path for path in NOUN.rglob("*") if path.is_file()):
        name = str(source.relative_to(NOUN))
        touched.append(name)
        shutil.copyfile(source, folder / name.replace("NNNN", "9999"))
    for name, lines in ADDED.items():
        text = (folder / name).read_text("utf-8")
        for after, line in lines:
            assert text.count(f"{after}\n") >= 1, f"{name} has no line {after!r}"
            text = text.replace(f"{after}\n", f"{after}\n{line}\n", 1)
        (folder / name).write_text(text, "utf-8")
        touched.append(name)
    return touched


def run(folder: Path, server_url: str, *command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(folder), "COORDINATOR_TEST_DATABASE_URL": server_url}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"


def test_a_noun_and_a_verb_cost_few_files() -> None:
    assert 0 < len(listed("To add a noun")) <= NOUN_FILES_MAX
    assert 0 < len(listed("To add a verb to a noun")) <= VERB_FILES_MAX
    assert listed("To add a verb to a noun") <= listed("To add a noun")  # so that the test below covers verbs, too


def test_a_noun_that_follows_the_list_works_on_every_floor(tmp_path: Path, server_url: str) -> None:
    touched = scratch_copy(tmp_path)
    assert {*touched} == listed("To add a noun") - OPTIONAL
    run(tmp_path, server_url, "tests.generate", "schema", "docs")
    code = [name for name in touched if name.endswith(".py")]
    run(tmp_path, server_url, "ruff", "check", "--ignore", "I001", *code, "coordinator/model/catalogue.py")
    own = [str(Path("tests") / path.relative_to(NOUN / "tests")) for path in (NOUN / "tests").rglob("test_*.py")]
    run(
        tmp_path,
        server_url,
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path}/pytest",
        "--about=note",
        *SEE_EVERY_NOUN,
        *own,
    )
