"""``coordinator artifact``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coordinator.cli.command import noun, paged
from coordinator.cli.invocation import Invocation
from coordinator.cli.output import counted, plain
from coordinator.errors import InvalidArgument
from coordinator.model.artifact import Artifact
from coordinator.operations import artifacts

if TYPE_CHECKING:
    from coordinator.operations.executor import Executor

command = noun("Artifacts: logs, diffs, reports and other files.")

COLUMNS = ("artifact", "bytes", "media_type", "session", "updated_at", "actor", "kept", "sha256", "created_at", "id")
STDIO = "-"

session_option = click.option("--session", metavar="KEY", help="Session that it belongs to.  [default: the project]")


@command.verb(
    examples=[
        "coordinator artifact put report.html",
        "coordinator artifact put build.log --name build/42/log --session build-42",
        "git diff | coordinator artifact put - --name change.diff --type text/x-diff",
        "coordinator artifact put report.html --expect 0     # only if there is none",
    ]
)
@click.argument("data", metavar="FILE")
@click.option("--name", "artifact", metavar="NAME", help="Name of the artifact.  [default: the file's]")
@click.option("--type", "media_type", metavar="TYPE", help="Media type.  [default: from the name]")
@session_option
@click.option("--sha256", metavar="HEX", help="SHA-256 that the content must have.")
@click.option(
    "--expect", metavar="HEX", help="Only replace content with this SHA-256; 0: only if the artifact does not exist."
)
@click.pass_obj
def put(call: Invocation, /, *, data: str, artifact: str | None, media_type: str | None, **options: Any) -> None:
    """Store a file, and replace the artifact of the same name.

    If FILE is "-", read standard input. An interrupted upload of a file continues where it stopped.
    """
    from coordinator.client.artifacts import media_type_of, store  # noqa: PLC0415 - help does not need it

    name = artifact or (None if data == STDIO else Path(data).name)
    if name is None:
        raise InvalidArgument("standard input has no name", hint="Give --name NAME.")
    begin = call.operation(artifacts.Begin, artifact=name, media_type=media_type or media_type_of(name), **options)

    async def stored(executor: Executor) -> Artifact:
        with _files(data), _progress() as moved:
            return await store(executor, begin, _pieces() if data == STDIO else Path(data), moved)

    found = call.through(stored)
    call.output.one(found, f"stored {plain(found.artifact)}, {counted(found.bytes, 'byte')}")


@command.verb(
    examples=[
        "coordinator artifact get report.html report.html",
        "coordinator artifact get build/42/log --session build-42 | tail",
    ]
)
@click.argument("artifact", metavar="NAME")
@click.argument("file", default=STDIO)
@session_option
@click.pass_obj
def get(call: Invocation, *, artifact: str, file: str, session: str | None) -> None:
    """Write an artifact to a file, or to standard output.

    The file appears when it is complete. If FILE is "-" or omitted, the artifact goes to standard output; a terminal accepts only text. Exit code 3: the artifact does not exist.
    """
    from coordinator.client.artifacts import fetch  # noqa: PLC0415
    from coordinator.operations.transfer import download  # noqa: PLC0415

    async def fetched(executor: Executor) -> Artifact:
        found = await executor.run(artifacts.Show(project=call.project, artifact=artifact, session=session))
        if file != STDIO:
            with _files(file), _progress() as moved:
                await fetch(executor, found, Path(file), moved)
            return found
        terminal = sys.stdout.isatty()
        if terminal and not found.media_type.startswith("text/"):
            raise InvalidArgument(
                f"{plain(artifact)} is {found.media_type}, and standard output is a terminal", hint="Give a FILE."
            )
        async for part in download(executor, found):
            if terminal:
                call.output.raw("\n".join(map(plain, part.decode(errors="replace").split("\n"))))
            else:
                call.output.octets(part)
        return found

    found = call.through(fetched)
    if file != STDIO:
        call.output.one(found, f"wrote {plain(file)}, {counted(found.bytes, 'byte')}")


@command.verb(examples=["coordinator artifact show report.html"])
@click.argument("artifact", metavar="NAME")
@session_option
@click.pass_obj
def show(call: Invocation, *, artifact: str, session: str | None) -> None:
    """Show an artifact without its content.

    Exit code 3: it does not exist.
    """
    call.output.one(call.run(artifacts.Show(project=call.project, artifact=artifact, session=session)))


@command.verb(
    examples=[
        "coordinator artifact list",
        "coordinator artifact list --prefix build/ --type 'text/*'",
        "coordinator artifact list --session build-42",
    ]
)
@click.option("--prefix", default="", metavar="P", help="List only names with this prefix.")
@click.option("--session", metavar="KEY", help="List only those of this session.")
@click.option("--type", "media_type", metavar="TYPE", help="List only this media type, or all of text/*.")
@paged
@click.pass_obj
def list_(call: Invocation, /, *, after: str | None, limit: int | None, **options: Any) -> None:
    """List the artifacts of the project and its sessions, by name."""
    operation = artifacts.List(project=call.project, **options)
    call.list(operation, COLUMNS, after=after, limit=limit, empty="There are no artifacts.")


@command.verb(examples=["coordinator artifact keep report.html", "coordinator artifact keep report.html --no-kept"])
@click.argument("artifact", metavar="NAME")
@session_option
@click.option("--kept/--no-kept", default=True, help="Keep it, or stop keeping it.")
@click.pass_obj
def keep(call: Invocation, *, artifact: str, session: str | None, kept: bool) -> None:
    """Keep an artifact, so that retention does not delete it."""
    found = call.run(call.operation(artifacts.Keep, artifact=artifact, session=session, kept=kept))
    call.output.one(found, f"{plain(artifact)} is {'' if kept else 'not '}kept")


@command.verb(examples=["coordinator artifact delete report.html"])
@click.argument("artifact", metavar="NAME")
@session_option
@click.pass_obj
def delete(call: Invocation, *, artifact: str, session: str | None) -> None:
    """Delete an artifact; exit code 3 if it does not exist."""
    call.run(call.operation(artifacts.Delete, artifact=artifact, session=session))
    call.output.one({"artifact": artifact, "deleted": True}, f"deleted {plain(artifact)}")


async def _pieces() -> AsyncIterator[bytes]:
    """Yield standard input."""
    import anyio  # noqa: PLC0415

    while piece := await anyio.to_thread.run_sync(sys.stdin.buffer.read, 1 << 20, abandon_on_cancel=True):
        yield piece


class _files:  # noqa: N801 - used as a function
    """Turns errors of a file into our own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and error.filename is not None:
            raise InvalidArgument(
                f"{plain(self._name)}: {error.strerror}", hint="Check the name of the file and its permissions."
            ) from error


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None] | None]:
    """Show on a terminal how much was moved, in a line that also ends if the rest fails."""
    if not sys.stderr.isatty():
        yield None
        return
    shown = False

    def moved(done: int, whole: int | None) -> None:
        nonlocal shown
        shown = True
        of = "" if whole is None else f" of {whole / 1e6:.1f}"
        sys.stderr.write(f"\r{done / 1e6:.1f}{of} MB")
        sys.stderr.flush()

    try:
        yield moved
    finally:
        if shown:
            sys.stderr.write("\n")
