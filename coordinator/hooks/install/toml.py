"""Adds one table at the end of a TOML file, or removes it; the rest of the text does not change.

A table without its own header is not edited: an error tells the owner of the file.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from coordinator.errors import InvalidArgument

__all__ = ["parse", "removed", "with_table"]

HEADER = re.compile(r"[ \t]*\[\[?[ \t]*([^\[\]\n]+?)[ \t]*\]\]?[ \t]*(?:#[^\n]*)?\r?(?:\n|\Z)")
TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'{3}.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}]|\n', re.DOTALL
)


def parse(text: str) -> dict[str, Any]:
    """Parse a text.

    Raises:
        InvalidArgument: It is malformed; the message has line and column.

    """
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidArgument(str(error)[:200] or "values are nested too deeply") from None


def with_table(text: str, path: tuple[str, ...], entry: dict[str, Any]) -> str:
    """Return the text with a table at its end, or in place of an existing one."""
    end = "\r\n" if "\r\n" in text else "\n"
    lines = [
        f"[{'.'.join(path)}]",
        *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()),
    ]
    table = end.join(lines) + end
    if found := _extent(text, path):
        start, stop = found
        return text[:start] + table + text[stop:]
    gap = "" if not text else end if text.endswith("\n") else end * 2
    return text + gap + table


def removed(text: str, path: tuple[str, ...]) -> str:
    """Return the text without a table, and without the empty line before it at the end."""
    found = _extent(text, path)
    if found is None:
        return text
    start, stop = found
    before, after = text[:start], text[stop:]
    if not after and (gap := re.search(r"(?<=\n)\r?\n\Z", before)):
        before = before[: gap.start()]
    return before + after


def _extent(text: str, path: tuple[str, ...]) -> tuple[int, int] | None:
    """Return the start of a table and the end of its last line, including the tables below it."""
    start = None
    stop = len(text)
    for line in _lines(text):
        header = HEADER.match(text, line)
        if header is None:
            continue
        names = tuple(part.strip().strip("\"'") for part in header[1].split("."))
        if names[: len(path)] == path:
            start = line if start is None else start
        elif start is not None:
            stop = line
            break
    if start is None:
        return None
    # Comments and empty lines above the next header belong to that header.
    kept = text[start:stop]
    while tail := re.search(r"(?:^|(?<=\n))[ \t]*(?:#[^\n]*)?\r?\n?\Z", kept):
        if not tail[0]:
            break
        kept = kept[: tail.start()]
    return start, start + len(kept)


def _lines(text: str) -> Iterator[int]:
    """Find the starts of lines that are not inside a multi-line string, a list or an inline table."""
    depth = 0
    yield 0
    for token in TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        elif token[0] == "\n" and depth == 0:
            yield token.end()
