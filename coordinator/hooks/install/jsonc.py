"""JSON with comments and trailing commas: a tree with the position of each value, and edits of the text.

An edit changes only what it names: comments, order, indentation and line ends of everything else stay. Added text is
formatted like its surroundings.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from coordinator.errors import InvalidArgument

__all__ = ["Node", "Text", "parse"]

DEPTH = 100
SPACE = re.compile(r"[ \t\r\n]*")
TRIVIA = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
ATOM = re.compile(r"-?[0-9][0-9a-zA-Z.+-]*|true|false|null")
BOM = "\ufeff"


class Node(msgspec.Struct):
    """A value from ``start`` to ``end``. Items of an object have a key, those of an array have none; ``begin`` is the start of an item."""

    start: int
    end: int
    value: Any
    begin: int = 0
    key: str | None = None
    items: list[Node] | None = None
    comma: int | None = None  # after the item

    def find(self, key: str) -> Node | None:
        """Return the item of an object with a name."""
        found = [item for item in self.items or () if item.key == key]
        if len(found) > 1:
            raise InvalidArgument(f'the name "{key}" occurs twice', hint="Remove one of them.")
        return found[0] if found else None


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, what: str) -> InvalidArgument:
        line = self.text.count("\n", 0, self.at) + 1
        column = self.at - self.text.rfind("\n", 0, self.at)
        return InvalidArgument(f"{what} in line {line}, column {column}")

    def trivia(self) -> None:
        found = TRIVIA.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def taken(self, mark: str) -> bool:
        if self.text.startswith(mark, self.at):
            self.at += len(mark)
            return True
        return False

    def value(self, depth: int = 0) -> Node:
        start = self.at
        if depth > DEPTH:
            raise self.fail("values are nested too deeply")
        if self.taken("{"):
            items = self.items(depth, "}", named=True)
            return Node(start, self.at, {item.key: item.value for item in items}, items=items)
        if self.taken("["):
            items = self.items(depth, "]", named=False)
            return Node(start, self.at, [item.value for item in items], items=items)
        found = STRING.match(self.text, start) or ATOM.match(self.text, start)
        if not found:
            raise self.fail("a value is missing")
        try:
            value = json.loads(found[0])
        except ValueError:
            raise self.fail("invalid value") from None
        self.at = found.end()
        return Node(start, self.at, value)

    def items(self, depth: int, closing: str, *, named: bool) -> list[Node]:
        items: list[Node] = []
        while True:
            self.trivia()
            if self.taken(closing):
                return items
            if items and items[-1].comma is None:
                raise self.fail(f'"," or "{closing}" is missing')
            begin, key = self.at, None
            if named:
                name = self.value(depth + 1) if self.text.startswith('"', begin) else None
                self.trivia()
                if name is None or not self.taken(":"):
                    raise self.fail("a name is missing")
                key = name.value
                self.trivia()
            node = self.value(depth + 1)
            node.begin, node.key = begin, key
            items.append(node)
            end = self.at
            self.trivia()
            if self.text.startswith(",", self.at):
                node.comma = self.at
                self.at += 1
            else:
                self.at = end


def parse(text: str) -> Node:
    """Return the tree of a text.

    Raises:
        InvalidArgument: It is malformed; the message has line and column.

    """
    reader = _Scanner(text)
    reader.taken(BOM)
    reader.trivia()
    root = reader.value()
    reader.trivia()
    if reader.at < len(text):
        raise reader.fail("something follows the value")
    return root


class Text:
    """A text and its tree, which is parsed again after each change."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.root = parse(text)
        self.line_end = "\r\n" if "\r\n" in text else "\n"
        found = re.search(r"\n([ \t]+)\"", text)
        self.unit = found[1] if found else "  "

    def at(self, path: tuple[str, ...]) -> Node | None:
        """Return the value at a path of names, or None."""
        node: Node | None = self.root
        for depth, key in enumerate(path):
            if node is None:
                return None
            if not isinstance(node.value, dict):
                raise _unsuitable(path[:depth], "an object", node)
            node = node.find(key)
        return node

    def set(self, path: tuple[str, ...], value: Any) -> None:
        """Set a member of an object; create missing objects along the path."""
        node, depth = self.root, 0
        while depth < len(path):
            if not isinstance(node.value, dict):
                raise _unsuitable(path[:depth], "an object", node)
            found = node.find(path[depth])
            if found is None:
                for key in reversed(path[depth + 1 :]):
                    value = {key: value}
                self._add(node, value, path[depth])
                return
            node, depth = found, depth + 1
        if node.value != value:
            self.replace(node, value)

    def append(self, path: tuple[str, ...], value: Any) -> None:
        """Append an element to the list at a path; create what is missing along the path."""
        node = self.at(path)
        if node is None:
            self.set(path, [value])
        elif not isinstance(node.value, list):
            raise _unsuitable(path, "a list", node)
        else:
            self._add(node, value, None)

    def replace(self, node: Node, value: Any) -> None:
        """Replace a value."""
        self._splice((node.start, node.end, self._rendered(value, self._margin(node.start), inline=False)))

    def remove(self, path: tuple[str, ...], index: int | None = None) -> None:
        """Remove the member at a path, or an element of the list there; also remove objects and lists that become empty."""
        holder = self.at(path if index is not None else path[:-1])
        assert holder is not None, path  # noqa: S101 - the caller has just found it
        items = holder.items or []
        place = index if index is not None else next(i for i, item in enumerate(items) if item.key == path[-1])
        if self._alone(holder) and len(path) > (1 if index is None else 0):
            self.remove(path if index is not None else path[:-1])
        else:
            self._drop(holder, place)

    def _alone(self, holder: Node) -> bool:
        """Return whether an object or list has one item and no comment."""
        items = holder.items or []
        if len(items) != 1:
            return False
        item = items[0]
        after = item.end if item.comma is None else item.comma + 1
        around = self.text[holder.start + 1 : item.begin] + self.text[item.end : item.comma or item.end]
        return not (around + self.text[after : holder.end - 1]).strip()

    def _drop(self, holder: Node, place: int) -> None:
        items = holder.items or []
        item, before = items[place], items[place - 1] if place else None
        start = self._back(item.begin)
        if item.comma is not None:
            self._splice((start, item.comma + 1, ""))
        elif before is not None and before.comma is not None:
            self._splice((start, item.end, ""), (before.comma, before.comma + 1, ""))
        else:
            closing = SPACE.match(self.text, item.end)
            bare = closing is not None and closing.end() == holder.end - 1 and start == holder.start + 1
            self._splice((start, holder.end - 1 if bare else item.end, ""))

    def _add(self, holder: Node, value: Any, key: str | None) -> None:
        items = holder.items or []
        closing = holder.end - 1
        inline = bool(items) and "\n" not in self.text[holder.start : holder.end]
        margin = self._margin(holder.start)
        inner = margin + self.unit
        if items and not inline and self.text[: items[0].begin].rstrip(" \t").endswith("\n"):
            inner = self._margin(items[0].begin)
        written = f"{json.dumps(key, ensure_ascii=False)}: " if key is not None else ""
        written += self._rendered(value, inner, inline=inline)
        gap = " " if inline else self.line_end + inner
        last = self._back(closing)  # after the last item, comma or comment
        if not items:
            tail = self.line_end + margin if last == holder.start + 1 else ""
            self._splice((last, closing if tail else last, gap + written + tail))
        elif items[-1].comma is not None:
            self._splice((last, last, f"{gap}{written},"))
        else:
            end = items[-1].end
            self._splice((last, last, gap + written), (end, end, ","))

    def _rendered(self, value: Any, margin: str, *, inline: bool) -> str:
        if inline:
            return json.dumps(value, ensure_ascii=False)
        return json.dumps(value, ensure_ascii=False, indent=self.unit).replace("\n", self.line_end + margin)

    def _margin(self, place: int) -> str:
        """Return the white space at the beginning of a line."""
        found = re.match(r"[ \t]*", self.text[self.text.rfind("\n", 0, place) + 1 :])
        return found[0] if found else ""

    def _back(self, place: int) -> int:
        """Return the position before the white space that precedes a position."""
        return len(self.text[:place].rstrip(" \t\r\n"))

    def _splice(self, *changes: tuple[int, int, str]) -> None:
        for start, end, written in changes:  # last position first
            self.text = self.text[:start] + written + self.text[end:]
        self.root = parse(self.text)


def _unsuitable(path: tuple[str, ...], wanted: str, node: Node) -> InvalidArgument:
    place = ".".join(path) or "the file"
    kinds: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
    kind = kinds.get(type(node.value), "a value")
    return InvalidArgument(f"{place} is {kind}; {wanted} is expected")
