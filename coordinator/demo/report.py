"""The summary: tables on a terminal, JSON when piped."""

from __future__ import annotations

import sys

import msgspec

from coordinator.demo.source import Review
from coordinator.demo.story import Broadcast, Killed, Part, Redirect, Rejection
from coordinator.demo.verdict import Delivery

__all__ = ["Report", "print_report"]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is told at the end. ``ok``: nothing is in ``faults``."""

    ok: bool
    faults: list[str]
    notes: list[str]
    root: str
    place: str
    project: str
    seconds: float
    shares: int
    accepted: int
    totals: Review
    agents: list[Part]
    rejection: Rejection | None
    redirect: Redirect | None
    broadcast: Broadcast | None
    killed: Killed | None
    events: Delivery


def print_report(report: Report) -> None:
    """Print to standard output."""
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        sys.stdout.flush()
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import, and pipes have no need of it
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console(highlight=False)
    table = Table(title="Who did what", title_justify="left")
    for heading in ("agent", "shares", "files", "lines", "checked", "directives", "end"):
        table.add_column(heading, justify="left" if heading in ("agent", "end") else "right", no_wrap=True)
    for part in report.agents:
        numbers = (part.shares, part.files, part.lines, part.checked, part.answered)
        table.add_row(part.agent, *(f"{number:,}" for number in numbers), part.end)
    console.print(table)
    for line in [*_sentences(report), *report.notes]:
        console.print(escape(line), soft_wrap=True)
    if report.ok:
        console.print(f"[bold green]Nothing lost.[/] {report.seconds:.1f} seconds.")
    for fault in report.faults:
        console.print(f"[bold red]Wrong:[/] {escape(fault)}", soft_wrap=True)


def _sentences(report: Report) -> list[str]:
    totals, events = report.totals, report.events
    lines = [
        (
            f"Counted    {totals.files:,} files, {totals.lines:,} lines, {totals.functions:,} functions, {totals.imports:,} imports, "
            f"{totals.todos:,} TODO marks in {report.accepted} of {report.shares} shares; "
            f"longest function {totals.longest[1]} ({totals.longest[0]} lines)"
        )
    ]
    if rejection := report.rejection:
        lines.append(
            f"Rejected   share {rejection.share} of {rejection.done_by}: {' and '.join(rejection.cleared)} cleared in the same "
            f"transaction; done again by {rejection.done_again_by}"
        )
    if redirect := report.redirect:
        lines.append(
            f"Redirected {redirect.agent} from share {redirect.left} to share {redirect.took}: {', '.join(redirect.answers[1:])}"
        )
    if broadcast := report.broadcast:
        lines.append(f"Everyone   was addressed, and {len(broadcast.done_by)} agents acknowledged")
    if killed := report.killed:
        lines.append(
            f"Killed     {killed.agent} with -9 over share {killed.share}: reaped after {_seconds(killed.reaped_after_s)}, claimed "
            f"again by {killed.claimed_again_by} after {_seconds(killed.claimed_again_after_s)}, completed by {killed.completed_by}"
        )
    lines.append(
        f"Events     {events.delivered:,} delivered: {events.lost} lost, {events.duplicates} twice, {events.out_of_order} out of "
        f"order, {events.gaps} gaps; change to follower p50 {events.latency_p50_ms} ms, p99 {events.latency_p99_ms} ms"
    )
    return lines


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
