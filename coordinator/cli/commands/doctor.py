"""``coordinator doctor``."""

from __future__ import annotations

import sys
from collections import Counter

import click
from click.exceptions import Exit

from coordinator.cli.command import Verb
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import plain
from coordinator.cli.table import Column, table
from coordinator.config import SETTINGS
from coordinator.errors import ConfigurationError
from coordinator.model.address import is_gateway
from coordinator.model.doctor import SEVERITIES, Finding, worst
from coordinator.version import version

EXIT_CODES = {"ok": 0, "unknown": 0, "warning": 9, "critical": 10}


@click.command(
    cls=Verb,
    examples=[
        "coordinator doctor",
        "coordinator doctor --fix",
        """coordinator doctor --output json | jq '.findings[] | select(.severity == "critical")'""",
    ],
)
@click.option("--fix", is_flag=True, help="Apply safe fixes: missing grants, missing partitions, ANALYZE.")
@click.pass_obj
def command(call: Invocation, *, fix: bool) -> None:
    """Find problems, and say how to fix them.

    The doctor checks connections, a pooler, clocks, the schema, privileges, blocking sessions, the relay, tables, standbys and limits.
    It reports what it cannot see; a role in pg_monitor sees everything. Through a daemon (--url https://…), it shows the findings of the
    daemon and the database. To check the daemon's own connections, run it on the daemon's host with the address of the database.

    Exit code 9: the worst finding is a warning; 10: it is critical.
    """
    import asyncio  # noqa: PLC0415 - help does not need it
    import shutil  # noqa: PLC0415

    from coordinator.doctor.examination import examine  # noqa: PLC0415

    dsn = call.dsn()
    if fix and is_gateway(dsn):
        raise ConfigurationError("--fix needs a direct connection to the database", hint="Give --url postgresql://…")

    async def findings() -> list[Finding]:
        return [finding async for finding in examine(dsn, call.dsn(direct=True), call.config, fix=fix)]

    found = asyncio.run(findings())
    severity = worst(found)
    if call.output.json:
        where = SETTINGS["database_url"].written(dsn)
        call.output.one({"address": where, "version": version(), "severity": severity, "findings": found})
    else:
        found.sort(key=lambda finding: SEVERITIES.index(finding.severity), reverse=True)
        call.output.raw(_report(found, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
        counts = Counter(finding.severity for finding in found)
        call.output.note("\n" + ", ".join(f"{count} {severity}" for severity, count in counts.items()))
    if code := EXIT_CODES[severity]:
        raise Exit(code)


def _report(found: list[Finding], width: int | None) -> str:
    """Lay out findings for a terminal of this width: whole, since a remedy is of no use in part, each remedy below what it is for."""
    rows = [("SEVERITY", "CHECK", "MESSAGE")]
    for finding in found:
        rows.append((finding.severity, finding.check, plain(finding.message)))
        if finding.remedy:
            rows.append(("", "", f"Remedy: {plain(finding.remedy)}"))
    severities, checks, messages = zip(*rows, strict=True)
    columns = (
        Column(severities[0], severities[1:]),
        Column(checks[0], checks[1:]),
        Column(messages[0], messages[1:], text=True),
    )
    return table(columns, width)[0]
