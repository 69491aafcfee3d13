"""Finds the known word that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["nearest", "suggestion"]

COMPARED = 100  # characters of the word, which may come from an attacker


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the one of ``words`` that was probably meant, or None."""
    from difflib import get_close_matches  # noqa: PLC0415 - slow to import, and rarely needed

    known, word = list(words), word[:COMPARED]
    # A part of a name is not similar enough to match, but often meant: "to" for "to_agent".
    close = get_close_matches(word, known) or [name for name in known if word and word in name.split("_")]
    return min(close, key=lambda name: sorted(name) != sorted(word), default=None)  # swapped letters first


def suggestion(word: str, words: Iterable[str], otherwise: str) -> str:
    """Return the hint that names the word that was probably meant; ``otherwise`` if there is none."""
    close = nearest(word, words)
    return otherwise if close is None else f"Did you mean {close}?"
