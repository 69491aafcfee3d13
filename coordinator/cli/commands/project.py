"""``coordinator project``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coordinator.cli.command import confirm, noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.values import OBJECT, given
from coordinator.operations import projects

command = noun("Projects: everything else belongs to a project.")


_username = click.option("--user", "username", metavar="NAME", help="User who owns the project.")
_title = click.option("--title", metavar="TEXT", help="Display name, one line.")
_settings = click.option("--settings", type=OBJECT, metavar="JSON", help="Your own settings, an object.")


@command.verb(
    examples=[
        "coordinator project create shop --description 'The web shop'",
        'coordinator project create shop --user ada --title Shop --settings \'{"branch": "main"}\'',
    ]
)
@click.argument("name", metavar="PROJECT")
@click.option("--description", default="", metavar="TEXT", help="Description, one line.")
@_username
@_title
@_settings
@click.pass_obj
def create(call: Invocation, /, *, name: str, **options: Any) -> None:
    """Create a project.

    A name has at most 36 lower-case letters, digits, - and _.
    """
    project = call.run(call.operation(projects.Create, project=name, **given(options)))
    call.output.one(project, f"created {project.project}")


@command.verb(
    name="set",
    examples=["coordinator project set --paths caseless", "coordinator project set shop --user ada --title 'The shop'"],
)
@click.argument("name", metavar="[PROJECT]", required=False)
@click.option("--paths", metavar="exact|normal|caseless", help="How locks compare paths.")
@click.option("--description", metavar="TEXT", help="Description, one line.")
@_username
@_title
@_settings
@click.pass_obj
def set_(call: Invocation, /, *, name: str | None, **options: Any) -> None:
    """Change a project; omitted options keep their values.

    Paths: normal (default) treats composed and decomposed letters as equal. caseless also ignores case, like the file systems of macOS
    and Windows. exact compares bytes. Exit code 4: paths are locked.
    """
    project = call.run(call.operation(projects.Set, project=name or call.project, **options))
    call.output.one(project, f"changed {project.project}")


@command.verb(examples=["coordinator project list", "coordinator project list | jq -r '.[].project'"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List all projects, by name."""
    columns = ("project", "title", "username", "description", "paths", "updated_at", "created_at", "settings")
    call.list(projects.List(), columns, after=after, limit=limit, empty="There are no projects.")


@command.verb(examples=["coordinator project show shop"])
@click.argument("name", metavar="[PROJECT]", required=False)
@click.pass_obj
def show(call: Invocation, *, name: str | None) -> None:
    """Show a project and the number of its rows."""
    call.output.one(call.run(projects.Show(project=name or call.project)))


@command.verb(examples=["coordinator project delete shop --yes"])
@click.argument("name", metavar="PROJECT")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation; required without a terminal.")
@click.pass_obj
def delete(call: Invocation, *, name: str, yes: bool) -> None:
    """Delete a project and everything in it."""
    confirm(f"Delete project {name} and everything in it?", yes=yes)
    call.run(call.operation(projects.Delete, project=name))
    call.output.one({"project": name, "deleted": True}, f"deleted {name}")


@command.verb(
    examples=[
        "coordinator project export shop > shop.jsonl",
        "coordinator project export shop --file shop.jsonl     # continues if it was interrupted",
        "coordinator project export shop | gzip > shop.jsonl.gz",
    ]
)
@click.argument("name", metavar="[PROJECT]", required=False)
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to this file, or continue an interrupted export in it.",
)
@click.pass_obj
def export(call: Invocation, *, name: str | None, file: Path | None) -> None:
    """Print a project as lines of JSON, for "project import".

    The export has the fields, sessions, logs, documents, artifacts, signals, rules and retention policies of the project, but no
    passwords or tokens. It may or may not include changes made during the export.
    """
    from coordinator.cli.transfer import export_project  # noqa: PLC0415

    export_project(call, name or call.project, file)


@command.verb(
    name="import",
    examples=[
        "coordinator project import shop < shop.jsonl",
        "gunzip -c shop.jsonl.gz | coordinator project import shop",
        "coordinator project import shop --allow-missing-users < shop.jsonl",
    ],
)
@click.argument("name", metavar="[PROJECT]", required=False)
@click.option(
    "--allow-missing-users",
    is_flag=True,
    help="If a user does not exist here, import that user's data without an owner.",
)
@click.pass_obj
def import_(call: Invocation, *, name: str | None, allow_missing_users: bool) -> None:
    """Import an export from standard input into an empty project.

    To continue an interrupted import, run it again with the same lines. Existing fields of the project, such as a title, stay. Exit code
    3: a user does not exist here; 4: the project already has content.
    """
    from coordinator.cli.transfer import import_project  # noqa: PLC0415

    import_project(call, name or call.project, allow_missing_users=allow_missing_users)
