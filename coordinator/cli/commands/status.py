"""``coordinator status``."""

from __future__ import annotations

import click
import msgspec

from coordinator.cli.command import Verb
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import age, plain
from coordinator.config import SETTINGS
from coordinator.model.address import is_gateway
from coordinator.model.status import Status
from coordinator.operations import status
from coordinator.version import version


@click.command(
    cls=Verb,
    examples=[
        "coordinator status",
        "coordinator status --url https://coordinator:7420 --project shop",
        "coordinator status --output json | jq -e '.warnings == []'",
    ],
)
@click.pass_obj
def command(call: Invocation) -> None:
    """Show the database, the leader, and what needs attention.

    It also shows versions, row counts of the project, and the cursor of the newest event.

    Exit code 6: the schema does not fit; 7: the database or daemon does not respond.
    """
    from coordinator import embedded  # noqa: PLC0415

    address = call.dsn()
    found = call.run(status.Show(project=call.project))
    server = None if call.config.database_url else embedded.find(call.config.data_dir)
    warnings = [*found.warnings, *_of_versions(found)]
    if server and server.upgrade:
        warnings.append(str(server.upgrade))
    where = SETTINGS["database_url"].written(address)
    if call.output.json:
        shown = {"address": where, "version": version(), **msgspec.structs.asdict(found), "warnings": warnings}
        call.output.one(shown)
        return
    counts = (
        (found.agent_count, "agent"),
        (found.signal_count, "signal"),
        (found.directive_count, "open directive"),
        (found.lock_count, "lock"),
        (found.waiting_count, "waiting request"),
    )
    kind = "daemon" if is_gateway(address) else "database"
    lines = {
        kind: f"embedded, in {SETTINGS['data_dir'].written(server.data_dir)}" if server else where,
        "versions": f"coordinator {version()}, PostgreSQL {found.postgres}, "
        f"schema of {found.schema_version} applied {age(found.schema_applied_at)}",
        "leader": f"{found.leader or 'none'}; {_count(found.daemon_count, 'daemon')}",
        "project": f"{found.project}: {', '.join(_count(*each) for each in counts)}",
        "events": f"up to cursor {found.head}",
    }
    for name, text in lines.items():
        call.output.line(f"{name:<8}  {plain(text)}")
    for warning in warnings:
        call.output.line(f"warning: {plain(warning)}")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _of_versions(found: Status) -> list[str]:
    """Return a warning if another version of the program applied the schema."""
    if found.schema_version == version():
        return []
    return [f'This program is {version()}, the schema that of {found.schema_version}. Run "coordinator schema status".']
