"""Tables for people: columns in order of usefulness, as many as fit on the terminal.

An id, a number, a time or a key is never broken, so that it can be copied. Free text wraps. Columns that do not fit are
omitted, the least useful ones first, and named, so that readers know that they exist.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import msgspec

__all__ = ["Column", "table"]

GAP = 2  # width of the space between two columns
TEXT_MIN = 24  # free text is not wrapped to less than this width


class Column(msgspec.Struct, frozen=True):
    """A heading, the cells below it, and whether they are free text, which may wrap."""

    heading: str
    cells: Sequence[str]
    text: bool = False

    @property
    def width(self) -> int:
        """The width without wrapping."""
        return max(map(_width, (self.heading, *self.cells)))

    @property
    def least(self) -> int:
        """The minimum width."""
        return min(self.width, max(TEXT_MIN, _width(self.heading))) if self.text else self.width


def table(columns: Sequence[Column], maximum: int | None) -> tuple[str, list[str]]:
    """Lay out columns for a terminal of ``maximum`` columns (None: any number); return the text and the headings omitted."""
    shown, omitted, used = [columns[0]], [], columns[0].least
    for column in columns[1:]:
        if maximum is None or used + GAP + column.least <= maximum:
            shown.append(column)
            used += GAP + column.least
        else:
            omitted.append(column.heading)
    widths = []
    for column in shown:
        more = column.width - column.least
        spare = more if maximum is None else max(0, min(more, maximum - used))
        widths.append(column.least + spare)
        used += spare
    lines = []
    for row in zip(*((column.heading, *column.cells) for column in shown), strict=True):
        cells = [
            list(_wrapped(cell, width)) if column.text else [cell]
            for column, cell, width in zip(shown, row, widths, strict=True)
        ]
        for index in range(max(map(len, cells))):
            parts = [cell[index] if index < len(cell) else "" for cell in cells]
            padded = (part + " " * (width + GAP - _width(part)) for part, width in zip(parts, widths, strict=True))
            lines.append("".join(padded).rstrip())
    return "".join(line + "\n" for line in lines), omitted


def _width(text: str) -> int:
    """Return the width of a text on a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Break a text into lines, between words where possible."""
    while _width(text) > width:
        end = used = 0
        for character in text:
            used += _columns(character)
            if used > width:
                break
            end += 1
        space = text.rfind(" ", 1, end + 1)
        end = space if space > 0 else max(end, 1)
        yield text[:end]
        text = text[end:].lstrip(" ")
    yield text
