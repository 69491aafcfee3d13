"""Results: tables and plain values as text, one object or array as JSON; by default text on a terminal, else JSON.

Text is for people: ages in place of times, control characters of what others wrote shown and not obeyed. Programs read
JSON, whose names do not change.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

import msgspec

from coordinator.errors import CoordinatorError

__all__ = ["NobodyReadsError", "Output", "age", "plain", "span"]

S = TypeVar("S", bound=msgspec.Struct)

AT_ONCE = select.PIPE_BUF  # a pipe that is ready takes so many bytes without blocking
CELL_MOST = 200  # characters of one cell; JSON has the whole


class NobodyReadsError(Exception):
    """The reader of the output went away, as ``head`` does: the program ends, and there is nothing to report."""


class Output:
    """Writes results to standard output."""

    def __init__(self, form: Literal["auto", "text", "json"]) -> None:
        self.json = form == "json" or (form == "auto" and not sys.stdout.isatty())

    def one(self, result: msgspec.Struct | Mapping[str, object], text: str | None = None) -> None:
        """Write one thing: an object; as text the sentence or value that is given, else a line for each field."""
        if self.json:
            self._json(result)
        elif text is not None:
            self.line(text)
        else:
            fields = msgspec.structs.asdict(result) if isinstance(result, msgspec.Struct) else result
            width = max(map(len, fields))
            for name, value in fields.items():
                self.line(f"{name:<{width}}  {_cell(value, most=None)}".rstrip())

    def many(self, results: list[S], columns: Iterable[str], *, empty: str) -> None:
        """Write things: an array; as text a table of ``columns``, or the sentence that there are none."""
        if self.json:
            self._json(results)
            return
        if not results:
            self.note(empty)
            return
        names = list(columns)
        rows = [[_cell(getattr(result, name)) for name in names] for result in results]
        if sys.stdout.isatty():
            _table(names, rows)
            return
        widths = [max(map(len, cells)) for cells in zip(names, *rows, strict=True)]
        for row in [[name.upper() for name in names], *rows]:
            self.line("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())

    async def lines(self, lines: Iterable[str]) -> None:
        """Write lines as the reader takes them: while it does not, the caller can be cancelled."""
        import anyio  # noqa: PLC0415

        descriptor = sys.stdout.fileno()
        content = "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")
        with _written():
            for start in range(0, len(content), AT_ONCE):
                # Files are always ready, and cannot be waited for.
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    with suppress(PermissionError):
                        await anyio.wait_writable(descriptor)
                part = content[start : start + AT_ONCE]
                while part:
                    part = part[os.write(descriptor, part) :]

    def line(self, text: str) -> None:
        """Write a line of text."""
        self._write(text + "\n")

    def raw(self, text: str) -> None:
        """Write a text as it is."""
        self._write(text)

    def note(self, text: str) -> None:
        """Say something beside the results, to people only."""
        if not self.json:
            sys.stderr.write(text + "\n")

    def flush(self) -> None:
        """See that everything is written."""
        self._write("")

    def _json(self, result: object) -> None:
        encoded = msgspec.json.encode(result)
        if sys.stdout.isatty():
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
            f"the output cannot be written: {error.strerror}",
            hint="What was asked for may be done nevertheless.",
        ) from error


def _table(names: list[str], rows: list[list[str]]) -> None:
    # On a terminal only, and late: importing rich takes longer than the whole call.
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(file=sys.stdout, emoji=False, highlight=False, markup=False).print(table)


def _cell(value: object, most: int | None = CELL_MOST) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return age(value)
        case timedelta():
            return span(value)
        case str():
            text = plain(value)
        case list() if all(isinstance(item, str) for item in value):
            text = plain(", ".join(value)) or "-"
        case list() | dict():
            text = plain(msgspec.json.encode(value).decode())
        case _:
            text = str(value)
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def plain(text: str) -> str:
    """Show control characters rather than obey them: others wrote this, and a terminal would."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def span(length: timedelta) -> str:
    """Write a length of time in its largest two units."""
    seconds = round(abs(length).total_seconds())
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def age(instant: datetime) -> str:
    """Write an instant as how long ago it was, or is to come."""
    ahead = instant - datetime.now(UTC)
    return f"in {span(ahead)}" if ahead > timedelta(0) else f"{span(ahead)} ago"
