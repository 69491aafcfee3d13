"""What a benchmark answers with: a plain table, and the machine that it ran on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

import msgspec

__all__ = ["Table", "heading", "load", "percentile", "ratio"]


class Table(msgspec.Struct):
    """One benchmark's numbers; the last column says the target and whether it was met."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = msgspec.field(default_factory=list)

    def text(self) -> str:
        """Write it as Markdown that is readable as it stands."""
        table = [self.columns, *self.rows]
        widths = [max(len(row[index]) for row in table) for index in range(len(self.columns))]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in table
        ]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join(
            [f"### {self.title}", "", *lines, *([""] if self.notes else []), *(f"- {note}" for note in self.notes), ""]
        )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of rounds that were run side by side."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], percent: int) -> float:
    """Read a percentile; of one value, that value."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def load() -> float:
    """How many processes wanted a processor during the last minute, ours included."""
    return os.getloadavg()[0]


def heading(server_version: str, settings: dict[str, str]) -> str:
    """Say when and on what the numbers were measured."""
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory_kb = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    shown = ", ".join(f"{name} = {value}" for name, value in settings.items())
    return "\n".join(
        [
            f"## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, PostgreSQL {server_version}",
            "",
            (
                f"{model}, {os.cpu_count()} processors, {memory_kb / 1024**2:.0f} GB, {platform.system()} {platform.release()}, "
                f"Python {platform.python_version()}. {shown}. Load average at the start: {load():.1f}."
            ),
            "",
        ]
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
