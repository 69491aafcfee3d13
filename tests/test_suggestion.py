"""The word that was probably meant."""

from __future__ import annotations

import pytest

from coordinator.suggestion import nearest, suggestion

WORDS = ["agent", "to_agent", "value", "ttl"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("valeu", "value"), ("to", "to_agent"), ("xyzzy", None), ("", None), ("x" * 10_000_000, None)],
)
def test_what_is_like_it_or_has_it_as_a_part_is_meant(word: str, meant: str | None) -> None:
    assert nearest(word, WORDS) == meant


def test_only_the_beginning_of_a_long_word_is_compared() -> None:
    assert nearest("a" * 100 + "b" * 1_000_000, ["a" * 100]) == "a" * 100


def test_a_hint_names_it_or_says_what_else_to_do() -> None:
    assert suggestion("valeu", WORDS, "See --help.") == "Did you mean value?"
    assert suggestion("xyzzy", WORDS, "See --help.") == "See --help."
