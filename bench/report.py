"""Results of benchmarks: a plain table each, the conditions it was measured under, and the page that keeps the newest."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

import msgspec

__all__ = ["Conditions", "Table", "load", "percentile", "ratio", "record"]


class Conditions(msgspec.Struct, frozen=True):
    """When, on what and at which commit a run was measured."""

    server_major: str
    text: str

    @classmethod
    def now(cls, server_version: str, settings: dict[str, str]) -> Conditions:
        """Read the present ones."""
        model = next(
            (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
            platform.processor(),
        )
        memory_kb = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
        shown = ", ".join(f"{name} = {value}" for name, value in settings.items())
        return cls(
            server_version.split(".", maxsplit=1)[0],
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {_commit()}, PostgreSQL {server_version}, Python "
            f"{platform.python_version()}, {model}, {os.cpu_count()} processors, {memory_kb / 1024**2:.0f} GB, "
            f"{platform.system()} {platform.release()}. {shown}. Load average at the start: {load():.1f}.",
        )


class Table(msgspec.Struct):
    """One benchmark's numbers; the last column says the target and whether it was met."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = msgspec.field(default_factory=list)

    def heading(self, conditions: Conditions) -> str:
        """Return the heading that the table has in the results."""
        return f"## {self.title}, PostgreSQL {conditions.server_major}"

    def text(self, conditions: Conditions) -> str:
        """Return the table as Markdown that is readable as plain text."""
        table = [self.columns, *self.rows]
        widths = [max(len(row[index]) for row in table) for index in range(len(self.columns))]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in table
        ]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        notes = [*self.notes, conditions.text]
        return "\n".join([self.heading(conditions), "", *lines, "", *(f"- {note}" for note in notes), ""])


def record(page: Path, table: Table, conditions: Conditions) -> None:
    """Write a table into a page of results, in place of the previous one."""
    head, *sections = re.split(r"^(?=## )", page.read_text("utf-8"), flags=re.MULTILINE)
    kept = {section.partition("\n")[0]: section.rstrip("\n") + "\n" for section in sections}
    kept[table.heading(conditions)] = table.text(conditions)
    page.write_text("\n".join([head.rstrip("\n") + "\n", *kept.values()]), "utf-8")


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of rounds that ran side by side."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile; of one value, that value."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def load() -> float:
    """Return the load average of the last minute, ours included."""
    return os.getloadavg()[0]


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
