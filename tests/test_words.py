"""One word for one thing: class names, and the wording of everything that people read."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from coordinator.operations import every

ROOT = Path(__file__).parent.parent
OPERATIONS = {(kind.__module__, kind.__name__) for kind in every()}

# wording → what to write instead
UNWANTED = {
    r"\banew\b": "again",
    r"\bcircles?\b": "cycle",
    r"(?<!here )\b(is|are) no\b(?! (longer|more|reason))": 'an adjective: invalid, unknown; "is not a"',
    r"\bso (long|many|often)\b(?! as)": "the number, or how long, how many, how often",
    r"\b(leave|left|leaves) (it|them|that)? ?away\b": "omit",
    r"\bhad together\b": "atomically",
    r"\bat the most\b": "at most",
    r"\b(gives?|gave|given|giving) up\b": "reap, abandon, stop",
    r"\b(gives?|gave|given|giving) back\b": "release, return",
    r"\bby (itself|themselves)\b": "automatically",
    r"\b[Tt]ells? whether\b": "return whether",
    r"\b[Tt]akes? leave\b": "close",
    r"\bmended?\b": "fix",
    r"\b[Aa]nswers? with\b": "return, respond with",
    r"\bfor want of\b": "because it lacks, without",
    r"\bin the face of\b": "despite",
    r"\b[Ff]aces?\b": "interface",
    r"# # ": "#",
    r"\b[Ww]hat is not given\b": "omitted fields, omitted options",
    r"\b[Cc]ould not look\b": "the check failed",
    r"\bstands? (between|beside)\b": "is between, is beside",
    r"\bwithout a goodbye\b": "is killed",
    r"\bhardly ever\b": "rarely",
    r"\bin the same trip\b": "in the same call",
    r"\bfor whoever\b": "for agents that, for callers that",
}
LEVELS = {"debug", "info", "warning", "error", "exception"}
# noun.past_participle; a state that lasts is an adjective
LOG_EVENT = re.compile(
    r"[a-z]+\.(?!un[a-z]+ed|not_)([a-z]+_)*([a-z]+ed|taken_over|ran|lost|stuck|stopping|behind|newer|slow|unreadable|reset)"
)
PROSE = {".py", ".sql", ".md", ".yaml", ".toml", ".js", ".sh"}
DEFINED = re.compile(r"(?<=\bdef )\w+")
GENERATED = {"sql/schema.sql"}  # from the migrations, among others, which are never edited


@cache
def prose() -> dict[str, str]:
    """Return the text of each tracked file that people read, by its path; names of functions as separate words."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name]
    own = str(Path(__file__).relative_to(ROOT))
    return {
        name: DEFINED.sub(lambda defined: defined[0].replace("_", " "), (ROOT / name).read_text("utf-8"))
        for name in names
        if name not in {*GENERATED, own} and not name.startswith("sql/migrations/")
        if Path(name).suffix in PROSE and (ROOT / name).is_file()
    }


def test_no_class_name_of_the_program_means_two_things() -> None:
    """The operations are exempt among themselves: their module is the noun, their name the verb."""
    places = defaultdict(set)
    for path in sorted((ROOT / "coordinator").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                place = "an operation" if (module, node.name) in OPERATIONS else module
                places[node.name.lstrip("_")].add(place)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_log_events_are_named_by_a_noun_and_a_past_participle() -> None:
    found = set()
    for path in sorted((ROOT / "coordinator").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr=level), args=[ast.Constant(value=str(event))]) if level in LEVELS:
                    found.add(event)
    assert "daemon.started" in found
    assert [event for event in sorted(found) if not LOG_EVENT.fullmatch(event)] == []


@pytest.mark.parametrize("wording", UNWANTED)
def test_nothing_that_people_read_uses_a_wording_that_has_a_standard_word(wording: str) -> None:
    found = []
    for name, text in prose().items():
        for match in re.finditer(wording, text):
            before, _, rest = text[: match.start()].rpartition("\n")
            number, line = before.count("\n") + 2, (rest + text[match.start() :]).partition("\n")[0]
            found.append(f"{name}:{number}: {line.strip()[:120]}")
    assert found == [], f"write: {UNWANTED[wording]}"
