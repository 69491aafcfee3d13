"""``coordinator backup``."""

from __future__ import annotations

from datetime import timedelta

import click

from coordinator.cli.command import noun, setting
from coordinator.cli.invocation import Invocation
from coordinator.cli.long_work import run_reported
from coordinator.cli.output import counted, plain, span
from coordinator.cli.values import DURATION

command = noun("Backups of the schema: make, list, verify and restore them.")

PATH = click.Path(readable=False)


_REMEDIES = {
    "differs": "Restore another one. Make a new backup, and check the disk.",
    "damaged": "Restore another one. Copy its files from elsewhere, or delete its directory: retention leaves it.",
    "renamed": "Give its directory that name again: until then, retention leaves it.",
    "newer": "Use that program to restore it.",
}


def _places() -> list[click.Option]:
    return [setting("backup_dir", "--dir", type=PATH), setting("pg_bin_dir", "--pg-bin-dir", type=PATH)]


_jobs = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Number of parallel database sessions.",
)


@command.verb(
    examples=[
        "coordinator backup create --dir /backups --keep 30d",
        "coordinator backup create --url postgresql://owner@db.example/agents --jobs 8",
    ],
    settings=_places(),
)
@_jobs
@click.option(
    "--keep",
    type=DURATION,
    help="Afterwards, delete backups of this database that are older; the last good one stays.  [default: delete none]",
)
@click.pass_obj
def create(call: Invocation, *, jobs: int, keep: timedelta | None) -> None:
    """Make a backup without stopping anyone's work.

    The backup contains a consistent snapshot of the schema coordinator, with a row count and a checksum for each table. "schema apply" waits until the backup ends.

    Exit code 4: another backup of the database is running; 9: the backup failed.
    """
    from coordinator.backup import create as creating  # noqa: PLC0415

    dsn, config = call.direct_dsn(), call.config
    made = run_reported(
        call, lambda report: creating.create(dsn, config, folder=config.backups, jobs=jobs, keep=keep, report=report)
    )
    text = f"{made.path}: {counted(made.rows, 'row')}, {made.bytes:,} bytes, in {span(timedelta(seconds=made.seconds))}"
    call.output.one(made, text)
    for line in [*(f"deleted {name}" for name in made.deleted), *made.notes]:
        call.output.note(plain(line))


@command.verb(examples=["coordinator backup list --dir /backups"], settings=_places()[:1])
@click.pass_obj
def list_(call: Invocation) -> None:
    """List the backups of a directory, newest first. This needs no database.

    Status "differs": a verification found differences; "damaged": a file is missing or truncated, so it cannot be restored; "renamed": the
    directory had another name; "newer": only a newer coordinator knows its format. "fault" has the reason. Unfinished backups are not listed.
    """
    from coordinator.backup import place  # noqa: PLC0415

    rows = place.listed(call.config.backups)
    columns = (
        "backup", "status", "started_at", "verified_at", "bytes", "rows", "database", "program", "postgres", "path",
        "fault",
    )  # fmt: skip
    call.output.many(rows, columns, empty=f"There is no backup in {plain(str(call.config.backups))}.")
    for row in rows:
        if row.fault is not None:
            call.output.note(plain(f'{row.backup} has status "{row.status}": {row.fault}. {_REMEDIES[row.status]}'))


@command.verb(
    examples=[
        "coordinator backup verify --dir /backups",
        "coordinator backup verify 20261126T190229Z-5f0c9a1e --embedded",
        "coordinator backup verify --on postgresql://verifier@spare.example/postgres",
    ],
    settings=_places(),
)
@click.argument("backup", required=False)
@_jobs
@click.option("--on", metavar="URL", help="Create the scratch database on this server.  [default: the server of --url]")
@click.option("--embedded", "in_embedded", is_flag=True, help="Start an embedded server, and create it there.")
@click.pass_obj
def verify(call: Invocation, *, backup: str | None, jobs: int, on: str | None, in_embedded: bool) -> None:
    """Restore a backup into a scratch database and compare it.

    By default, verify the newest good backup. Every table is compared with the manifest. The scratch database is always dropped at the end. The time and the result are stored beside the backup, and in the database for metrics.

    Exit code 9: the restored data differs from the manifest.
    """
    from coordinator.backup import verify as verifying  # noqa: PLC0415
    from coordinator.errors import DatabaseUnavailable  # noqa: PLC0415

    if on is not None and in_embedded:
        raise click.UsageError("give --on or --embedded, not both")
    config = call.config
    try:
        dsn = call.direct_dsn()
    except DatabaseUnavailable:  # it may be lost, and the question is whether the backup is good
        if on is None and not in_embedded:
            raise
        dsn = None
    found = run_reported(
        call,
        lambda report: verifying.verify(
            dsn, config, folder=config.backups, name=backup, on=on, in_embedded=in_embedded, jobs=jobs, report=report
        ),
    )
    text = f"{found.backup} is good: {counted(found.rows, 'row')} of {counted(found.tables, 'table')}, in {span(timedelta(seconds=found.seconds))}"
    call.output.one(found, text)
    for note in found.notes:
        call.output.note(plain(note))


@command.verb(
    examples=[
        "coordinator backup restore --url postgresql://owner@db.example/new",
        "coordinator backup restore 20261126T190229Z-5f0c9a1e --dir /backups",
    ],
    settings=_places(),
)
@click.argument("backup", required=False)
@_jobs
@click.pass_obj
def restore(call: Invocation, *, backup: str | None, jobs: int) -> None:
    """Restore a backup into a database without the schema.

    By default, restore the newest good backup. Every table is compared with the manifest, and roles get their grants. A new epoch
    begins: new fencing tokens, job fences and signal versions are larger than all earlier ones, and readers with a cursor of lost events
    get a reset.

    Exit code 4: the database already has the schema; 9: the restored data differs from the backup.
    """
    from coordinator.backup import restore as restoring  # noqa: PLC0415

    dsn, config = call.direct_dsn(), call.config
    done = run_reported(
        call,
        lambda report: restoring.restore(dsn, config, folder=config.backups, name=backup, jobs=jobs, report=report),
    )
    applied = f"; applied {counted(len(done.applied), 'newer file')} of the schema" if done.applied else ""
    text = (
        f"restored {done.backup} into {done.database}: {counted(done.rows, 'row')}, in {span(timedelta(seconds=done.seconds))}; "
        f"epoch {done.epoch} began{applied}"
    )
    call.output.one(done, plain(text))
    for note in done.notes:
        call.output.note(plain(note))
