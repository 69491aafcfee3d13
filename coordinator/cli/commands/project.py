"""``coordinator project``."""

from __future__ import annotations

import click

from coordinator.cli.command import confirm, noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.operations import projects

command = noun("Projects: everything else belongs to one.")


@command.verb(examples=["coordinator project create shop --description 'The web shop'"])
@click.argument("name", metavar="PROJECT")
@click.option("--description", default="", metavar="TEXT", help="Description, one line.")
@click.pass_obj
def create(call: Invocation, *, name: str, description: str) -> None:
    """Create a project.

    A name has at most 36 lower-case letters, digits, - and _.
    """
    project = call.run(call.operation(projects.Create, project=name, description=description))
    call.output.one(project, f"created {project.project}")


@command.verb(
    name="set", examples=["coordinator project set --paths caseless", "coordinator project set shop --paths exact"]
)
@click.argument("name", metavar="[PROJECT]", required=False)
@click.option("--paths", required=True, metavar="exact|normal|caseless", help="How locks compare paths.")
@click.pass_obj
def set_(call: Invocation, *, name: str | None, paths: str) -> None:
    """Set how locks of a project compare paths.

    normal, the default: composed and decomposed letters are equal. caseless: capital and small letters are, too, as in file systems of
    macOS and Windows. exact: byte by byte. Exit code 4: paths are locked.
    """
    project = call.run(call.operation(projects.Set, project=name or call.project, paths=paths))
    call.output.one(project, f"{project.project} compares paths: {project.paths}")


@command.verb(examples=["coordinator project list", "coordinator project list | jq -r '.[].project'"])
@paged
@click.pass_obj
def list_(call: Invocation, *, after: str | None, limit: int | None) -> None:
    """List all projects, by name."""
    columns = ("project", "description", "paths", "created_at")
    call.list(projects.List(), columns, after=after, limit=limit, empty="There are no projects.")


@command.verb(examples=["coordinator project show shop"])
@click.argument("name", metavar="[PROJECT]", required=False)
@click.pass_obj
def show(call: Invocation, *, name: str | None) -> None:
    """Show a project and the number of its rows."""
    call.output.one(call.run(projects.Show(project=name or call.project)))


@command.verb(examples=["coordinator project delete shop --yes"])
@click.argument("name", metavar="PROJECT")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation; required where nobody can be asked.")
@click.pass_obj
def delete(call: Invocation, *, name: str, yes: bool) -> None:
    """Delete a project and everything in it."""
    confirm(f"Delete project {name} and everything in it?", yes=yes)
    call.run(call.operation(projects.Delete, project=name))
    call.output.one({"project": name, "deleted": True}, f"deleted {name}")
