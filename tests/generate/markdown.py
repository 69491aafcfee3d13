"""Markdown for the generated parts of `docs/`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["coded", "escaped", "names", "table"]

CODE = re.compile(r"(`+)(.+?)\1|([A-Za-z]\w*_\w+)")  # marked as code, or a name with an underscore


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


def names(found: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in found)


def escaped(text: str) -> str:
    """Return prose from the program or the catalogue as one line of Markdown, which can be used in a table."""
    parts: list[str] = []
    end = 0
    for code in CODE.finditer(text):
        parts += [_plain(text[end : code.start()]), coded(code[2] or code[3])]
        end = code.end()
    return " ".join("".join([*parts, _plain(text[end:])]).split())


def coded(text: str) -> str:
    """Return code that can be used in a table."""
    if "|" not in text:
        return f"`{text}`"
    # In backticks, an escaped | loses its backslash only on GitHub.
    for character, name in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;")):
        text = text.replace(character, name)
    return f"<code>{text}</code>"


def _plain(text: str) -> str:
    for character in r"\|*_<[":
        text = text.replace(character, f"\\{character}")
    return text
