"""Results: tables and values as text, or one object or array as JSON. The default is text on a terminal, otherwise JSON.

Text is for people: it shows ages instead of times, and escapes control characters in other people's texts. On a
terminal, fields and columns without any value are omitted, unless ``--wide`` is given. Programs read JSON; its names do
not change.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

import msgspec

from coordinator.cli.table import Column, table
from coordinator.errors import CoordinatorError
from coordinator.model.fields import fields_of
from coordinator.model.operation import Json

__all__ = ["NobodyReadsError", "Output", "age", "cell", "counted", "plain", "span"]

S = TypeVar("S", bound=msgspec.Struct)

AT_ONCE = select.PIPE_BUF  # bytes that a writable pipe accepts without blocking
MAX_CELL = 200  # characters of a cell; JSON is not truncated
CAPPED = {"queued_count": 10_000}  # counts that stop there
NONE = ("result", "checkpoint")  # JSON fields whose null means that there is no value
TEXT = (  # columns that may wrap
    "body", "context", "description", "error", "hold_reason", "lesson", "message", "mission", "pause_reason", "question", "reason",
    "remedy", "snippet", "text", "title", "value",
)  # fmt: skip


class NobodyReadsError(Exception):
    """The reader of the output has ended, as ``head`` does. The program ends and reports nothing."""


class Output:
    """Writes results to standard output."""

    def __init__(self, form: Literal["auto", "text", "json"], *, wide: bool = False) -> None:
        self._wide = wide
        self._sparse = sys.stdout.isatty() and not wide  # omit fields without a value
        self.json = form == "json" or (form == "auto" and not sys.stdout.isatty())

    def one(self, result: msgspec.Struct | Mapping[str, object], text: str | None = None) -> None:
        """Write one result: as JSON an object; as text the given text or, without one, a line for each field."""
        if self.json:
            self._json(result)
        elif text is not None:
            self.line(text)
        else:
            if isinstance(result, msgspec.Struct):
                found = fields_of(type(result))
                fields: Mapping[str, object] = {field.encode_name: getattr(result, field.name) for field in found}
                types = {field.encode_name: field.type for field in found}
            else:
                fields, types = result, {}
            if self._sparse:
                fields = {name: value for name, value in fields.items() if not _absent(name, value, types.get(name))}
            width = max(map(len, fields), default=0)
            for name, value in fields.items():
                json = _json(name, value, types.get(name))
                lines = value.rstrip().split("\n") if isinstance(value, str) and not json else [value]
                for heading, line in zip((name, *[""] * len(lines)), lines, strict=False):
                    self.line(f"{heading:<{width}}  {cell(_count(name, line), None, json=json)}".rstrip())

    def many(self, results: list[S] | list[Mapping[str, object]], columns: Iterable[str], *, empty: str) -> None:
        """Write several results: as JSON an array; as text a table, or ``empty`` if there are none.

        ``columns`` are in order of usefulness: columns that do not fit on the terminal are omitted from the end and
        named, unless ``wide`` is set.
        """
        if self.json:
            self._json(results)
            return
        if not results:
            if empty:
                self.note(empty)
            return
        import shutil  # noqa: PLC0415 - slow to import, and not needed for JSON

        width = shutil.get_terminal_size().columns if self._sparse else None
        laid = _columns(results, columns, None if self._wide else MAX_CELL, sparse=self._sparse)
        shown, omitted = table(laid, width)
        self.raw(shown)
        if width and omitted:
            self.note(textwrap.fill(f"(--wide shows {', '.join(omitted)})", width))

    async def lines(self, lines: Iterable[str]) -> None:
        """Write lines as fast as the reader takes them. The caller can be cancelled while this waits."""
        import anyio  # noqa: PLC0415

        descriptor = sys.stdout.fileno()
        content = "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")
        with _written():
            for start in range(0, len(content), AT_ONCE):
                # A file is always writable, and waiting for one is an error.
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    with suppress(PermissionError):
                        await anyio.wait_writable(descriptor)
                part = content[start : start + AT_ONCE]
                while part:
                    part = part[os.write(descriptor, part) :]

    def line(self, text: str) -> None:
        """Write a line of text."""
        self._write(text + "\n")

    def octets(self, data: bytes) -> None:
        """Write bytes unchanged."""
        with _written():
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def raw(self, text: str) -> None:
        """Write text unchanged."""
        self._write(text)

    def note(self, text: str) -> None:
        """Write a note to standard error, unless the output is JSON."""
        if not self.json:
            sys.stderr.write(text + "\n")

    def flush(self) -> None:
        """Flush the output."""
        self._write("")

    def _json(self, result: object) -> None:
        encoded = msgspec.json.encode(result)
        if sys.stdout.isatty():
            with suppress(msgspec.DecodeError):  # part of a character
                encoded = msgspec.json.format(encoded, indent=2)
        self._write(encoded.decode() + "\n")

    def _write(self, text: str) -> None:
        with _written():
            sys.stdout.write(text)
            sys.stdout.flush()


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise NobodyReadsError from error
        raise CoordinatorError(
            f"cannot write the output: {error.strerror}",
            hint="The command may have succeeded; check before you repeat it.",
        ) from error


def _absent(name: str, value: object, type: object) -> bool:
    """Return whether a field has no value. In JSON, null and empty values count as values."""
    return not _json(name, value, type) and value in (None, [], {})


def _json(name: str, value: object, type: object) -> bool:
    return type == Json and (value is not None or name not in NONE)


def _count(name: str, value: object) -> object:
    """Mark a count that was not continued."""
    return f"{value}+" if name in CAPPED and value == CAPPED[name] else value


def _columns(
    results: Sequence[msgspec.Struct | Mapping[str, object]],
    names: Iterable[str],
    maximum: int | None,
    *,
    sparse: bool,
) -> list[Column]:
    first = results[0]
    types = {} if isinstance(first, Mapping) else {field.name: field.type for field in fields_of(type(first))}
    columns: list[Column] = []
    for name in names:
        values = [result.get(name) if isinstance(result, Mapping) else getattr(result, name) for result in results]
        if name == "error" and maximum is not None:  # a traceback follows
            values = [value.strip().partition("\n")[0] if isinstance(value, str) else value for value in values]
        if sparse and columns and all(_absent(name, value, types.get(name)) for value in values):
            continue
        cells = [cell(_count(name, value), maximum, json=_json(name, value, types.get(name))) for value in values]
        # Cells have ages, so "EXPIRES" reads better than "EXPIRES_AT".
        heading = plain(name.removesuffix("_at").replace("_", " ").upper())
        columns.append(
            Column(heading, cells, text=name in TEXT or any(isinstance(value, list | dict) for value in values))
        )
    return columns


def cell(value: object, maximum: int | None = MAX_CELL, *, json: bool = False) -> str:
    match value:
        case None:
            return "null" if json else "-"
        case bool():
            return str(value).lower()
        case datetime():
            return age(value)
        case timedelta():
            return span(value)
        case float() if not json:
            digits = 6 if maximum is None else 3
            return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
        case str():
            text = plain(value)
        case msgspec.Raw():
            text = plain(bytes(value).decode())
        case list() if not json and all(isinstance(item, str) for item in value):
            text = plain(", ".join(value)) or "-"
        case list() | dict():
            text = plain(msgspec.json.encode(value).decode())
        case _:
            text = str(value)
    return text if maximum is None or len(text) <= maximum else text[: maximum - 1] + "…"


def plain(text: str) -> str:
    """Escape control characters, which a terminal would interpret."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(count: int, one: str, many: str = "") -> str:
    """Format a number of things: 1 entry, 2 entries."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def span(length: timedelta) -> str:
    """Format a duration in its two largest units."""
    seconds = round(abs(length).total_seconds())
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def age(instant: datetime) -> str:
    """Format an instant as the time since it, or until it."""
    ahead = instant - datetime.now(UTC)
    return f"in {span(ahead)}" if ahead > timedelta(0) else f"{span(ahead)} ago"
