"""``coordinator backup``."""

from __future__ import annotations

from datetime import timedelta

import click

from coordinator.cli.command import noun, setting
from coordinator.cli.invocation import Invocation
from coordinator.cli.long_work import direct, run_reported
from coordinator.cli.output import counted, plain, span
from coordinator.cli.values import DURATION

command = noun("Backups of the schema: make, list, verify and restore them.")

PATH = click.Path(readable=False)


def _places() -> list[click.Option]:
    return [setting("backup_dir", "--dir", type=PATH), setting("pg_bin_dir", "--pg-bin-dir", type=PATH)]


_jobs = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Sessions that read or write at the same time.",
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
    help="Then delete backups of this database that are older; the last good one stays.  [default: delete none]",
)
@click.pass_obj
def create(call: Invocation, *, jobs: int, keep: timedelta | None) -> None:
    """Make a backup while everybody goes on working.

    It has the schema coordinator of one moment, and a count and a checksum of the rows of each table. Meanwhile "schema apply" waits.

    Exit code 4: another backup of the database runs; 9: it failed.
    """
    from coordinator.backup import create as creating  # noqa: PLC0415

    dsn, config = direct(call), call.config
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
    """List the complete backups of a directory, newest first. This needs no database.

    Status "differs": a verification found so; "damaged": a file is missing or cut off.
    """
    from coordinator.backup import place  # noqa: PLC0415

    rows = [each.shown() for each in place.found(call.config.backups)]
    columns = (
        "backup",
        "status",
        "started_at",
        "verified_at",
        "bytes",
        "rows",
        "database",
        "program",
        "postgres",
        "path",
    )
    call.output.many(rows, columns, empty=f"There is no backup in {plain(str(call.config.backups))}.")


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
@click.option("--on", metavar="URL", help="Make the scratch database on this server.  [default: that of --url]")
@click.option("--embedded", "in_embedded", is_flag=True, help="Make it on an embedded server that is started for it.")
@click.pass_obj
def verify(call: Invocation, *, backup: str | None, jobs: int, on: str | None, in_embedded: bool) -> None:
    """Restore a backup into a scratch database and compare it.

    By default it is the newest good backup. Every table is compared with the manifest. The scratch database is dropped at the end, whatever happened. Time and result are kept beside the backup, and in the database, where metrics find them.

    Exit code 9: the backup is not what it was made of.
    """
    from coordinator.backup import verify as verifying  # noqa: PLC0415
    from coordinator.errors import DatabaseUnavailable  # noqa: PLC0415

    if on is not None and in_embedded:
        raise click.UsageError("give --on or --embedded, not both")
    config = call.config
    try:
        dsn = direct(call)
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

    By default it is the newest good backup. Everything is compared with the manifest. Roles get their grants, and a new epoch begins: fencing tokens, leases of jobs and versions of
    signals go on above all earlier ones, and cursors of what is lost get a reset.

    Exit code 4: the database has the schema already; 9: what was restored differs.
    """
    from coordinator.backup import restore as restoring  # noqa: PLC0415

    dsn, config = direct(call), call.config
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
