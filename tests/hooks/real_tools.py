"""The programs themselves, as npm has them: ``make tools``.

Each has its hooks installed by ``coordinator hook install``, and talks to a stub of its maker's API, whose model writes two files.
Another session holds the second one. Cursor and VS Code are not on npm, and their models cannot be replaced.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from anyio import to_thread

from tests.daemon import Daemon
from tests.hooks.model_stub import Model, serving
from tests.http_client import http_client

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".tools" / "node_modules" / ".bin"
DEADLINE_S = 300
PROMPT = "Write both files."


class Workplace:
    """A repository and a home of the test's own."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.repository = folder / "shop"
        self.home = folder / "home"
        for made in (self.repository, self.home, folder / "bin"):
            made.mkdir()
        command = folder / "bin" / "coordinator"
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m coordinator "$@"\n')
        command.chmod(0o755)
        path = f"{folder / 'bin'}:{PROGRAMS}:{os.environ['PATH']}"
        self.environment = {"PATH": path, "HOME": str(self.home), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
        self.environment |= {"COORDINATOR_DATABASE_URL": database_url, "COORDINATOR_PROJECT": "shop"}
        self.run("git", "init", "--quiet")

    def run(self, *command: str, stdin: str = "", **environment: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.repository,
            env={**self.environment, **environment},
            input=stdin,
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

    def held(self) -> dict[str, str]:
        """Return the locked resources and who holds each."""
        return {lock["resource"]: lock["agent"] for lock in json.loads(self.run("coordinator", "lock", "list"))}


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
def test_a_real_program_makes_an_allowed_edit_and_learns_who_holds_another_file(
    tool: str, tmp_path: Path, database_url: str
) -> None:
    place = Workplace(tmp_path, database_url)
    place.run("coordinator", "project", "create", "shop")
    edit = {"file_path": str(place.repository / "denied.txt"), "content": "theirs"}
    other = {"session_id": "theirs", "cwd": str(place.repository), "hook_event_name": "PreToolUse"}
    payload = json.dumps({**other, "tool_name": "Write", "tool_input": edit})
    assert place.run("coordinator", "hook", "run", "--limit", "1m", stdin=payload) == ""
    place.run("coordinator", "hook", "install", tool, "--yes", "--", "--wait", "0s", "--limit", "1m")
    model = Model(place.repository, ["allowed.txt", "denied.txt"])
    with serving(model) as url:
        TOOLS[tool](place, url)
    assert (place.repository / "allowed.txt").read_text() == "written\n"
    assert not (place.repository / "denied.txt").exists()
    allowed, refused = model.results
    assert "claude-code-theirs" in refused
    assert "claude-code-theirs" not in allowed
    assert "denied.txt" in next(json.dumps(body) for _, body in model.requests if body.get("tools"))  # the greeting
    assert place.held() == {"denied.txt": "claude-code-theirs"}  # nothing of the session that has ended


async def test_a_real_program_sends_its_hooks_to_a_daemon(tmp_path: Path, database_url: str) -> None:
    place = Workplace(tmp_path, database_url)
    with Daemon(database_url) as daemon:
        await daemon.ready()
        place.run("coordinator", "project", "create", "shop")
        place.run("coordinator", "hook", "install", "claude-code", "--yes", "--url", daemon.url, "--", "--wait", "0s")
        theirs = {"session_id": "theirs", "cwd": str(place.repository), "hook_event_name": "PreToolUse"}
        edit = {"tool_name": "Write", "tool_input": {"file_path": "denied.txt"}}
        async with http_client(daemon.url) as client:
            held = await client.post("/v1/hooks/claude-code?project=shop", json={**theirs, **edit})
            assert held.status_code == 200
        model = Model(place.repository, ["allowed.txt", "denied.txt"])
        with serving(model) as url:
            await to_thread.run_sync(claude_code, place, url)
        assert (place.repository / "allowed.txt").read_text() == "written\n"
        assert "claude-code-theirs" in model.results[1]
        assert place.held() == {"denied.txt": "claude-code-theirs"}
