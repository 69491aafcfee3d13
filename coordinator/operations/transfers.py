"""Export and import of a project, as lines of JSON.

The format is described in ``docs/state.md``. ``import_lines`` sends the lines of an export in batches. The database
counts them in the transaction that imports them. So a killed import continues where it stopped, and a batch whose
response was lost is sent again.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from coordinator.errors import InvalidArgument
from coordinator.model.catalogue import LIMITS
from coordinator.model.operation import Json, Objects, Operation, Scope
from coordinator.model.page import PAGE_BYTES, Page
from coordinator.model.transfer import ExportLine, ImportProgress

__all__ = ["Export", "Import", "Lines", "import_lines"]

AT_ONCE_BYTES = 1 << 20
_CONTENTS = 7  # section of an export

Lines = Iterable[str | bytes] | AsyncIterable[str | bytes]


class Export(Operation[list[ExportLine]], frozen=True, kw_only=True):
    """Return a project as lines of JSON: its own fields, sessions, logs, documents, artifacts, signals, rules and retention policies.

    A change between two pages may or may not be in the export. Passwords and tokens are not exported.
    """

    function = "project_export"
    reads = True
    fetches = True
    scope = Scope.PROJECT
    page_by = ("section", "kind", "key", "number")

    project: str
    after: list[str] | None = None
    limit: int = 1000

    async def fetched(self, result: list[ExportLine], objects: Objects) -> list[ExportLine]:
        """Return the page with the bytes of parts that are in an object store; it ends when it exceeds the size of a page."""
        lines: Page[ExportLine] = Page()
        size = 0
        for row in result:
            if size >= PAGE_BYTES:
                lines.cut = True
                return lines
            lines.append(await _with_bytes(row, objects) if row.section == _CONTENTS else row)
            size += len(lines[-1].line)
        lines.cut = isinstance(result, Page) and result.cut
        return lines


class Import(Operation[ImportProgress], frozen=True, kw_only=True):
    """Import lines of an export into a project without content; ``done`` is the number of lines before them.

    ``export`` is the id in the first line. Lines that are already imported change nothing. With
    ``allow_missing_users``, content of users who do not exist here is imported without an owner.

    Raises: ``InvalidArgument`` for another format or version, or a damaged line; ``Conflict`` if the project has other
    content; ``NotFound`` for a user who does not exist.
    """

    function = "project_import"
    scope = Scope.PROJECT
    speakers = ("actor",)
    max_bytes = "import_body"

    project: str
    export: str
    lines: list[Json]
    done: int = 0
    allow_missing_users: bool = False
    actor: str | None = None


class _StoredPart(msgspec.Struct, tag_field="type", tag="part"):
    sha256: str
    part: int
    store: str | None = None
    object: str = ""
    bytes: int = 0


async def _with_bytes(row: ExportLine, objects: Objects) -> ExportLine:
    """Return a line of contents with its bytes, as the database writes it for bytes that it stores."""
    if '"object"' not in row.line[:500]:  # otherwise the line is short
        return row
    part = msgspec.json.decode(row.line, type=_StoredPart)
    if part.store is None:
        return row
    data = await objects.read(part.store, part.object, (part.part - 1) * LIMITS["artifact_part_bytes"], part.bytes)
    text = base64.b64encode(data).decode()
    return replace(
        row, line=f'{{"type" : "part", "sha256" : "{part.sha256}", "part" : {part.part}, "data" : "{text}"}}'
    )


async def import_lines(
    run: Callable[[Import], Awaitable[ImportProgress]],
    project: str,
    lines: Lines,
    *,
    allow_missing_users: bool = False,
    actor: str | None = None,
    progress: Callable[[ImportProgress], None] = lambda _: None,
) -> ImportProgress:
    """Import an export, and continue it if a part is imported already.

    Raises: what ``Import`` raises; ``InvalidArgument`` for a line that is not JSON, and for an export without its end.
    """
    opening, state = (
        Import(project=project, export="", lines=[], allow_missing_users=allow_missing_users, actor=actor),
        None,
    )
    async for first, batch in _batches(lines):
        # The project's own fields are a separate transaction, so that their locks are not held while others are waited for.
        if state is None:
            opening = replace(opening, export=str(batch[0].get("export", "")))
            state = await run(replace(opening, lines=[*batch[:2]]))
        if first + len(batch) > state.lines and not state.finished:
            state = await run(replace(opening, lines=[*batch], done=first))
        progress(state)
        if state.finished:
            return state
    if state is None:
        raise InvalidArgument(
            "the export is empty", hint='Give what "coordinator project export" printed.', code="ZC101"
        )
    raise InvalidArgument(
        f"the export ends after line {state.lines}, without its last line",
        hint="It was interrupted: export the project again. The import continues with the lines that follow.",
        code="ZC103",
    )


async def _batches(lines: Lines) -> AsyncIterator[tuple[int, list[dict[str, Any]]]]:
    """Yield batches of decoded lines, each with the number of lines before it."""
    batch: list[dict[str, Any]] = []
    first, size = 0, 0
    async for text in _each(lines):
        batch.append(_decoded(text, first + len(batch) + 1))
        size += len(text)
        if size >= AT_ONCE_BYTES or len(batch) == LIMITS["import_lines"]:
            yield first, batch
            first, batch, size = first + len(batch), [], 0
    if batch:
        yield first, batch


async def _each(lines: Lines) -> AsyncIterator[str | bytes]:
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            yield line
    else:
        for line in lines:
            yield line


def _decoded(text: str | bytes, number: int) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise InvalidArgument(
            f"line {number} is not a JSON object",
            hint='Give what "coordinator project export" printed.',
            code="ZC105" if number == 1 else "ZC103",
        ) from None
