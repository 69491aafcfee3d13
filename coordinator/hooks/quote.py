"""Quotes texts of others for a text that a model reads.

A name, a task or a value may try to instruct the model. So it is quoted in a way that it cannot break out of, on one
line, without characters that control a terminal or the direction of text, without the < and > of tags, and cut.
"""

from __future__ import annotations

import re

__all__ = ["quoted", "shortened"]

_OUTSIDE = str.maketrans({"<": "‹", ">": "›", '"': "'", "`": "'", "\u201c": "'", "\u201d": "'"})  # noqa: RUF001
# Compiled at first use. Invisible characters, though Python considers them printable: see check_name in sql/functions/check.sql.
_INVISIBLE = "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"


def quoted(text: str | None, most: int = 80) -> str:
    """Return a text in quotes, with at most ``most`` characters between them."""
    return f'"{shortened(text, most)}"'


def shortened(text: str | None, most: int) -> str:
    """Return a text on one line, made harmless and cut; … marks the cut."""
    seen = (text or "")[: 4 * most + 100]
    plain = "".join(sign if sign.isprintable() else " " for sign in re.sub(_INVISIBLE, "", seen).translate(_OUTSIDE))
    plain = " ".join(plain.split())
    return plain if len(plain) <= most and len(seen) == len(text or "") else plain[: max(most - 1, 0)].rstrip() + "…"
