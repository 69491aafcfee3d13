"""A handler of hooks for the tests of real programs: it refuses denied.txt, through the dialects, and notes what it got."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from coordinator.hooks import dialects
from coordinator.hooks.event import Decision, Kind, Verdict

REASON = "denied.txt is held by coder-2 for the task LOGIN"


def main(notes: Path, arguments: list[str]) -> None:
    payload = dialects.decode(sys.stdin.buffer.read())
    named = arguments.index("--dialect") + 1 if "--dialect" in arguments else 0
    name = arguments[named] if named else dialects.recognise(payload)
    event = dialects.load(name).read(payload)
    verdict = Verdict(context=f"CONTEXT-{event.kind}")
    if event.kind is Kind.BEFORE_EDIT and any(Path(file.path).name == "denied.txt" for file in event.files):
        verdict = Verdict(Decision.DENY, REASON)
    note = {"tool": name, "kind": event.kind, "session": event.session, "files": [file.path for file in event.files]}
    with notes.open("a") as lines:
        lines.write(json.dumps({**note, "prompt": event.prompt, "hears": event.hears}) + "\n")
    sys.stdout.write(dialects.load(name).answer(event, verdict).stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
