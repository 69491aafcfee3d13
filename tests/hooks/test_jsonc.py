"""A change of a JSON text touches nothing else than what it names."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.errors import InvalidArgument
from coordinator.hooks.install.jsonc import Text, parse

COMMENTED = """\
// settings of the shop
{
\t"theme": "dark", // not light
\t/* who may
\t   do what */
\t"permissions": {"allow": ["Bash(ls)",]},
\t"hooks": {
\t\t"Stop": [
\t\t\t{ "hooks": [{"type": "command", "command": "say \\"done\\" // no comment"}] } // mine
\t\t],
\t},
}
"""
VALUE = {"matcher": "Edit", "hooks": [{"type": "command", "command": "x"}]}


def test_comments_order_indentation_and_trailing_commas_stay() -> None:
    text = Text(COMMENTED)
    text.append(("hooks", "PreToolUse"), VALUE)
    text.append(("hooks", "Stop"), VALUE)
    assert text.root.value["hooks"]["PreToolUse"] == [VALUE]
    assert text.root.value["hooks"]["Stop"][1] == VALUE
    assert insertions(COMMENTED, text.text)
    assert '\n\t\t"PreToolUse": [\n\t\t\t{\n\t\t\t\t"matcher": "Edit",' in text.text
    text.remove(("hooks", "Stop"), 1)
    text.remove(("hooks", "PreToolUse"), 0)
    assert text.text == COMMENTED


@pytest.mark.parametrize(
    "before", ['{"a": 1}', '{"a": [1, 2]}\n', '{\r\n  "a": 1\r\n}\r\n', '\ufeff{\n    "a": {}\n}', "{\n}", "{}"]
)
def test_line_ends_and_style_are_those_of_the_text(before: str) -> None:
    text = Text(before)
    text.set(("b",), {"c": 1})
    assert text.root.value["b"] == {"c": 1}
    assert "\r\n" not in before or not re.search(r"(?<!\r)\n", text.text)
    assert "\n" in before or before == "{}" or "\n" not in text.text
    text.remove(("b",))
    assert before in (text.text, "{\n}")


WORDS = st.text(st.sampled_from('ab"\\/*é,:{}[]\n\t '), max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | WORDS,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(WORDS, x, max_size=3),
    max_leaves=8,
)
SPACES = st.sampled_from(["", " ", "\n", "\t", "  \n  ", "// c\n", '/* { " */', " /**/ ", "//\n\n"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Write an object as somebody might have, with comments and white space anywhere."""
    value = draw(st.dictionaries(WORDS.filter(lambda key: key not in ("x", "hooks")), VALUES, max_size=4))
    if draw(st.booleans()):
        value["hooks"] = {"Stop": draw(st.lists(VALUES, min_size=1, max_size=2)), "Other": draw(VALUES)}

    def gap() -> str:
        return draw(SPACES)

    def written(part: Any) -> str:
        match part:
            case dict():
                items = [f"{gap()}{json.dumps(key)}{gap()}:{gap()}{written(item)}{gap()}" for key, item in part.items()]
                return "{" + ",".join(items) + ("," if items and draw(st.booleans()) else "") + gap() + "}"
            case list():
                items = [f"{gap()}{written(item)}{gap()}" for item in part]
                return "[" + ",".join(items) + ("," if items and draw(st.booleans()) else "") + gap() + "]"
            case _:
                return json.dumps(part, ensure_ascii=draw(st.booleans()))

    return draw(SPACES) + written(value) + draw(SPACES)


def insertions(before: str, after: str) -> bool:
    """Return whether ``after`` has all characters of ``before`` in their order."""
    rest = iter(after)
    return all(character in rest for character in before)


@given(texts(), st.sampled_from(["element", "member"]))
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_what_is_added_and_removed_leaves_the_text_unchanged(before: str, kind: str) -> None:
    text = Text(before)
    was = text.root.value
    before = before if was else re.sub(r"\{\s+\}", "{}", before)
    if kind == "member":
        path, added = ("x",), {**was, "x": VALUE}
        text.set(path, VALUE)
    else:
        path = ("hooks", "Stop")
        stops = was.get("hooks", {}).get("Stop", [])
        added = {**was, "hooks": {**was.get("hooks", {}), "Stop": [*stops, VALUE]}}
        text.append(path, VALUE)
    assert text.root.value == added
    assert list(text.root.value) == list(added)
    assert insertions(before, text.text)
    text.remove(path, None if kind == "member" else len(added["hooks"]["Stop"]) - 1)
    assert text.root.value == was
    assert text.text == before


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "line 1, column 1"),
        ('{"a": 1', "line 1, column 8"),
        ('{"a": 1,\n "b" 2}', "line 2, column 6"),
        ('{"a": 1 "b": 2}', "line 1, column 9"),
        ('{"a": 01}', "line 1"),
        ('{"a": "x\ny"}', "line 1, column 7"),
        ("{} x", "line 1, column 4"),
        ("{'a': 1}", "line 1, column 2"),
        ('{"a": "\\x"}', "line 1, column 7"),
        ("{/* }", "line 1, column 2"),
        ("[" * 1000, "nested too deeply"),
    ],
)
def test_a_malformed_text_is_refused_with_its_place(text: str, where: str) -> None:
    with pytest.raises(InvalidArgument, match=where):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"hooks": []}', "hooks is a list; an object is expected"),
        ('{"hooks": {"Stop": {}}}', "hooks.Stop is an object; a list is expected"),
        ("[]", "the file is a list; an object is expected"),
        ('{"hooks": {}, "hooks": {}}', '"hooks" occurs twice'),
    ],
)
def test_what_is_not_where_it_should_be_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        Text(text).append(("hooks", "Stop"), VALUE)
