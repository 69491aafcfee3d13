"""The command blocks of the README and of `docs/`, as they are executed: `sh` and `sql`, page by page, in their order.

A comment before a block says what a reader does not see: `<!-- first: … -->` has commands that prepare it, `<!-- not executed: why -->`
excepts it, and `<!-- executed by tests/… -->` says which other test executes it. The generated references have no blocks of their own here; their examples are parsed by tests/cli/test_help.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.generate.docs import PART

__all__ = ["ROOT", "Block", "blocks", "pages"]

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>first|not executed|executed by):?\s(?P<text>(?:(?!-->).)*?) -->\n)?"
    r"^```(?P<language>sh|sql)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A block, what prepares it, why it is not executed, and which other test does."""

    language: str
    code: str
    first: str
    excepted: str | None
    elsewhere: str | None

    @property
    def name(self) -> str:
        """Its first line, without a comment."""
        return self.code.partition("\n")[0].partition("  ")[0].strip()


def pages() -> list[str]:
    found = ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md")))]
    return [page for page in found if blocks(page)]


def blocks(page: str) -> list[Block]:
    text = PART.sub("", (ROOT / page).read_text("utf-8"))
    return [
        Block(
            found["language"],
            found["code"],
            (found["text"] or "") if found["mark"] == "first" else "",
            found["text"] if found["mark"] == "not executed" else None,
            found["text"] if found["mark"] == "executed by" else None,
        )
        for found in BLOCK.finditer(text)
    ]
