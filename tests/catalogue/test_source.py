"""The program's source: what must not be there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import coordinator
from coordinator.db import schema

ROOT = Path(coordinator.__file__).parent
WRITES = re.compile(
    r"\b(insert\s+into|delete\s+from|merge\s+into|truncate|update\s+(only\s+)?[\w.\"]+\s+(as\s+\w+\s+)?set)\b",
    re.IGNORECASE,
)


def texts(path: Path) -> list[str]:
    """All string constants that are not docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]


def test_the_pattern_knows_sql_that_writes() -> None:
    for sql in ("insert into t values (1)", "UPDATE coordinator.t SET a = 1", "delete from t", "merge into t using u"):
        assert WRITES.search(sql)
    assert not WRITES.search("update this program, then set the option")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_python_holds_no_sql_that_writes(path: Path) -> None:
    assert [text for text in texts(path) if WRITES.search(text)] == []


def test_no_sentence_of_sql_relies_on_format_to_return_null() -> None:
    """`format` writes null as an empty text, so the text around it remains: 'with key ""'."""
    for file in schema.files():
        assert "coalesce(format(" not in file.text, file.name
