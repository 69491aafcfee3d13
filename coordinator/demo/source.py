"""The files of a source tree, their division into shares, and the work on one: counting what is in it.

The work is the same for whoever does it, so that a recount can be compared. Files that are binary, larger than
``FILE_MOST`` or unreadable are left out, and no more than ``FILES_MOST`` are taken.
"""

from __future__ import annotations

import ast
import io
import os
import re
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from coordinator.errors import InvalidArgument

__all__ = ["FILES_MOST", "Review", "SourceFile", "add", "find", "review", "split"]

FILES_MOST = 1000
FILE_MOST = 512 * 1024  # bytes
FILE_WEIGHT = 2000  # bytes that a file counts for beside its own
SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "build", "dist", "target", "site-packages"})

_TODO = re.compile(r"\b(TODO|FIXME|XXX)\b")


class SourceFile(msgspec.Struct, frozen=True, array_like=True):
    """A file as it was when the work was divided: whoever finds another size or time has another file before them."""

    path: str
    size: int
    modified_ns: int


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What is in some files. ``longest`` is the longest function, as lines and place."""

    files: int = 0
    lines: int = 0
    bytes: int = 0
    functions: int = 0
    classes: int = 0
    imports: int = 0
    todos: int = 0
    longest: tuple[int, str] = (0, "")


def find(root: Path) -> tuple[list[SourceFile], bool]:
    """Find the files to work on, by path; and tell whether there are more than that.

    Raises: ``InvalidArgument`` where there is no such folder.
    """
    if not root.is_dir():
        raise InvalidArgument(f"{root} is no folder", hint="Give the path of a source tree.")
    found: list[SourceFile] = []
    for path in _walk(root):
        if len(found) == FILES_MOST:
            return found, True
        found.append(path)
    return found, False


def _walk(root: Path) -> Iterator[SourceFile]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name not in SKIPPED and not name.endswith(".egg-info")
        )
        for name in sorted(names):
            path = Path(folder, name)
            try:
                if name.startswith(".") or path.is_symlink() or not path.is_file():
                    continue
                status = path.stat()
                if status.st_size > FILE_MOST:
                    continue
                with path.open("rb") as opened:
                    if b"\0" in opened.read(4096):
                        continue
                relative = path.relative_to(root).as_posix()
                relative.encode()
            except (OSError, UnicodeEncodeError):
                continue
            yield SourceFile(relative, status.st_size, status.st_mtime_ns)


def split(files: Sequence[SourceFile], count: int) -> list[list[SourceFile]]:
    """Divide files, in their order, into ``count`` shares of about the same size, none of them empty."""
    shares: list[list[SourceFile]] = [[]]
    left = sum(file.size + FILE_WEIGHT for file in files)
    filled = 0
    for index, file in enumerate(files):
        to_come = count - len(shares)
        if shares[-1] and to_come and (filled >= left / (to_come + 1) or len(files) - index == to_come):
            shares.append([])
            left -= filled
            filled = 0
        shares[-1].append(file)
        filled += file.size + FILE_WEIGHT
    return shares


def review(root: Path, path: str) -> Review:
    """Count what is in a file; one that is gone or no longer text counts as an empty one."""
    try:
        content = (root / path).read_bytes()
    except OSError:
        return Review(files=1)
    text = content.decode("utf-8", "replace")
    lines = text.splitlines()
    plain = Review(files=1, lines=len(lines), bytes=len(content), todos=sum(1 for line in lines if _TODO.search(line)))
    return _review_python(plain, path, text) if path.endswith(".py") else plain


def _review_python(plain: Review, path: str, text: str) -> Review:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nodes = list(ast.walk(ast.parse(text)))
        comments = [
            token.string
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type == tokenize.COMMENT
        ]
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return plain
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return Review(
        files=1,
        lines=plain.lines,
        bytes=plain.bytes,
        functions=len(functions),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        imports=sum(len(node.names) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)),
        todos=sum(1 for comment in comments if _TODO.search(comment)),
        longest=max(
            (((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.name}") for node in functions),
            default=(0, ""),
        ),
    )


def add(one: Review, other: Review) -> Review:
    """Put two reviews together."""
    return Review(
        files=one.files + other.files,
        lines=one.lines + other.lines,
        bytes=one.bytes + other.bytes,
        functions=one.functions + other.functions,
        classes=one.classes + other.classes,
        imports=one.imports + other.imports,
        todos=one.todos + other.todos,
        longest=max(one.longest, other.longest),
    )
