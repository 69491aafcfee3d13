"""The paragraph for agents in a repository's AGENTS.md, between markers."""

from __future__ import annotations

import re
from pathlib import Path

from coordinator.hooks.install import file
from coordinator.hooks.install.change import Change

__all__ = ["PARAGRAPH", "planned"]

START, END = "<!-- coordinator: start -->", "<!-- coordinator: end -->"
PARAGRAPH = """\
## Working with other agents

Other agents may work in this repository at the same time. Before you edit a file, a hook locks it for your session; nobody else
can edit it until your turn or session ends, or you commit.

- If an edit is refused, the message says which agent holds the file, for which task and until when. Work on something else, or
  run one of the commands in the message: one waits for the file, one asks the holder.
- Do not bypass a refusal with a shell command, another tool or a copy of the file.
- If a message says that a file has changed since you read it, read it again before you edit it.
- When your session begins, a message names its agent and project. `coordinator lock list --project PROJECT` shows the locked
  files, and `coordinator agent list --project PROJECT` shows the active agents."""


def planned(path: Path, *, install: bool) -> Change:
    """Return the change that writes the paragraph, or removes it. A file that is its backup copy plus the paragraph becomes the copy again."""
    before = file.content(path)
    if before is None:
        return Change(path, None, _marked("", install=True) if install else None)
    after = _marked(before, install=install)
    if after == before:
        return Change(path, before, before)
    former = file.content(file.copy_of(path))
    if former is not None and START not in former and _marked(former, install=True) == _marked(before, install=True):
        return Change(path, before, after, "former") if install else Change(path, before, former, "nothing")
    return Change(path, before, after, "copy") if after else Change(path, before, None, "former")


def _marked(before: str, *, install: bool) -> str:
    end = "\r\n" if "\r\n" in before else "\n"
    block = f"{START}\n{PARAGRAPH}\n{END}\n".replace("\n", end) if install else ""
    found = re.search(rf"{re.escape(START)}\r?\n.*?{re.escape(END)}(\r?\n)?", before, re.DOTALL)
    if found is None:
        gap = "" if not before else end if before.endswith("\n") else end * 2
        return before + gap + block if install else before
    head, tail = before[: found.start()], before[found.end() :]
    if not block and re.match(r"\r?\n|\Z", tail):  # the blank line before the paragraph belongs to it
        head = re.sub(r"(?<=\n)\r?\n\Z", "", head)
    return head + block + tail
