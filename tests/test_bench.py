"""The page of benchmark results keeps the newest table of each benchmark and server."""

from __future__ import annotations

from pathlib import Path

from bench.report import Conditions, Table, record


def test_a_new_table_replaces_its_predecessor_and_leaves_the_others(tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    page.write_text("# Results\n\nHistory.\n")
    old, new, other = Conditions("15", "monday"), Conditions("15", "friday"), Conditions("18", "monday")
    calls = Table("Calls", ["what", "ratio"], [["get", "1.2"]], ["A note."])
    locks = Table("Locks", ["what", "ratio"], [["acquire", "1.4"]])
    record(page, calls, old)
    record(page, locks, old)
    record(page, calls, other)
    record(page, Table("Calls", ["what", "ratio"], [["get", "1.1"]]), new)

    assert page.read_text() == "\n".join(
        [
            "# Results",
            "",
            "History.",
            "",
            "## Calls, PostgreSQL 15",
            "",
            "| what | ratio |",
            "|------|-------|",
            "| get  | 1.1   |",
            "",
            "- friday",
            "",
            locks.text(old),
            calls.text(other),
        ]
    )
