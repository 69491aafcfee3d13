"""The programs themselves, as npm has them: ``make tools``.

Each has its hooks installed by ``coordinator hook install``, and talks to a stub of its maker's API, whose model writes two files. A
handler refuses the second one. Cursor and VS Code are not on npm, and their models cannot be replaced.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hooks.handler import REASON
from tests.hooks.model_stub import Model, serving

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".tools" / "node_modules" / ".bin"
DEADLINE_S = 300
PROMPT = "Write both files."


class Workplace:
    """A repository and a home of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "shop"
        self.home = folder / "home"
        self.notes = folder / "notes"
        for made in (self.repository, self.home, folder / "bin"):
            made.mkdir()
        python = shlex.quote(sys.executable)
        handler = shlex.join([sys.executable, "-m", "tests.hooks.handler", str(self.notes)])
        script = (
            f'#!/bin/sh\nif [ "$1 $2" = "hook run" ]; then exec {handler} "$@"; fi\nexec {python} -m coordinator "$@"\n'
        )
        (folder / "bin" / "coordinator").write_text(script)
        (folder / "bin" / "coordinator").chmod(0o755)
        path = f"{folder / 'bin'}:{PROGRAMS}:{os.environ['PATH']}"
        self.environment = {"PATH": path, "HOME": str(self.home), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
        self.run("git", "init", "--quiet")

    def run(self, *command: str, **environment: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.repository,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def settings(self, name: str, content: str) -> None:
        (self.home / name).parent.mkdir()
        (self.home / name).write_text(content)

    def noted(self) -> Iterator[dict[str, Any]]:
        for line in self.notes.read_text().splitlines():
            yield json.loads(line)


def claude_code(place: Workplace, url: str) -> None:
    variables = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "stub",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    place.run("claude", "-p", PROMPT, "--permission-mode", "acceptEdits", **variables)


def codex(place: Workplace, url: str) -> None:
    provider = (
        f'[model_providers.stub]\nname = "stub"\nbase_url = "{url}/v1"\nwire_api = "responses"\nenv_key = "STUB"\n'
    )
    trust = f'[projects."{place.repository}"]\ntrust_level = "trusted"\n'
    place.settings(".codex/config.toml", f'model = "gpt-5.5"\nmodel_provider = "stub"\n{provider}{trust}')
    place.run("codex", "exec", "--dangerously-bypass-hook-trust", "--sandbox", "workspace-write", PROMPT, STUB="x")


def copilot(place: Workplace, url: str) -> None:
    place.settings(".copilot/config.json", json.dumps({"trustedFolders": [str(place.repository)]}))
    provider = {"COPILOT_PROVIDER_BASE_URL": url, "COPILOT_PROVIDER_TYPE": "anthropic", "COPILOT_PROVIDER_API_KEY": "x"}
    model = {"COPILOT_MODEL": "claude-sonnet-4.5", "COPILOT_OFFLINE": "true"}
    place.run("copilot", "-p", PROMPT, "--allow-all-tools", **provider, **model)


def gemini(place: Workplace, url: str) -> None:
    place.settings(".gemini/settings.json", json.dumps({"security": {"auth": {"selectedType": "gemini-api-key"}}}))
    variables = {"GOOGLE_GEMINI_BASE_URL": url, "GEMINI_API_KEY": "stub", "GEMINI_CLI_TRUST_WORKSPACE": "true"}
    place.run("gemini", "--model", "gemini-2.5-flash", "--approval-mode", "auto_edit", "-p", PROMPT, **variables)


TOOLS = {"claude-code": claude_code, "codex": codex, "copilot": copilot, "gemini": gemini}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_real_program_makes_an_allowed_edit_and_hears_why_another_one_is_refused(tool: str, tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    place.run("coordinator", "hook", "install", tool, "--yes")
    model = Model(place.repository, ["allowed.txt", "denied.txt"])
    with serving(model) as url:
        TOOLS[tool](place, url)
    assert (place.repository / "allowed.txt").read_text() == "written\n"
    assert not (place.repository / "denied.txt").exists()
    allowed, refused = model.results
    assert REASON in refused
    assert REASON not in allowed
    noted = [*place.noted()]
    assert {note["tool"] for note in noted} == {tool}
    assert len({note["session"] for note in noted}) == 1
    kinds = [note["kind"] for note in noted]
    assert kinds[0] == "session_start"
    assert set(kinds) >= {"prompt", "before_edit", "after_edit", "stop", "session_end"}
    edits = [Path(file).name for note in noted if note["kind"] == "before_edit" for file in note["files"]]
    assert edits == ["allowed.txt", "denied.txt"]
    assert [note["prompt"] for note in noted if note["kind"] == "prompt"] == [PROMPT]
    read = json.dumps(model.requests)
    for kind in {note["kind"] for note in noted if note["hears"]} & {"session_start", "prompt"}:
        assert f"CONTEXT-{kind}" in read
