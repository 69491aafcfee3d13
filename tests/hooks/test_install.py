"""``hook install`` and ``mcp install``: the settings of each tool, and what goes wrong with them."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.cli.commands import mcp
from coordinator.cli.tool_settings import TOOLS, located, notes
from coordinator.errors import CoordinatorError
from coordinator.hooks import dialects
from coordinator.hooks.dialects.entries import SettingsScope
from coordinator.hooks.install import agents_md, file, toml
from coordinator.hooks.install import change as installing
from tests.cli.conftest import Program, lone
from tests.waiting import DEADLINE_S

__all__ = ["lone"]

FILES = {
    "claude-code": ".claude/settings.json",
    "codex": ".codex/hooks.json",
    "copilot": ".github/hooks/coordinator.json",
    "cursor": ".cursor/hooks.json",
    "gemini": ".gemini/settings.json",
    "vscode": ".github/hooks/coordinator.json",
}
SERVERS = {
    "claude-code": ".mcp.json",
    "codex": ".codex/config.toml",
    "copilot": ".mcp.json",
    "cursor": ".cursor/mcp.json",
    "gemini": ".gemini/settings.json",
    "vscode": ".vscode/mcp.json",
}
ALL = [("hook", tool, name) for tool, name in FILES.items()] + [("mcp", tool, name) for tool, name in SERVERS.items()]
OTHERS = {
    ".json": '{\n\t// mine\n\t"version": 1,\n\t"other": [1],\n\t"hooks": {"Stop": [{"command": "say done"}]}, // kept\n}\n',
    ".toml": '# mine\nmodel = "gpt-6"  # kept\n\n[mcp_servers.db]\ncommand = "db"\n',
}


@pytest.fixture
def repository(lone: Program) -> Program:
    """The program in a repository, as a command of the path."""
    (lone.folder / ".git").mkdir()
    lone.install()
    return lone


def test_every_dialect_can_be_installed() -> None:
    assert tuple(TOOLS.choices) == dialects.NAMES


@pytest.mark.parametrize(
    ("noun", "tool"), [("hook", "claude-code"), ("hook", "copilot"), ("mcp", "codex"), ("mcp", "gemini")]
)
def test_an_installation_is_seen_repeated_without_effect_and_taken_back(
    repository: Program, noun: str, tool: str
) -> None:
    path = repository.folder / (FILES if noun == "hook" else SERVERS)[tool]
    before = OTHERS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(before)
    path.chmod(0o640)
    [state] = repository.json(noun, "status", tool, "--project")
    assert (state["state"], state["file"]) == ("missing", str(path))
    [planned] = repository.json(noun, "install", tool, "--dry-run")
    assert path.read_text() == before
    [done] = repository.json(noun, "install", tool, "--yes")
    assert done["changed"]
    assert done["difference"] == planned["difference"]
    assert Path(done["copy"]).read_text() == before
    after = path.read_text()
    assert ("coordinator hook run" if noun == "hook" else '"coordinator"') in after
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert repository.json(noun, "status", tool, "--project")[0]["state"] == "installed"
    [again] = repository.json(noun, "install", tool, "--yes")
    assert (again["changed"], again["copy"], path.read_text()) == (False, None, after)
    repository.json(noun, "uninstall", tool, "--yes")
    assert path.read_text() == before
    assert repository.json(noun, "uninstall", tool, "--yes")[0]["changed"] is False


@pytest.mark.parametrize(("noun", "tool", "name"), ALL)
def test_an_installation_keeps_everything_else_of_a_file_byte_for_byte(
    noun: str, tool: str, name: str, tmp_path: Path
) -> None:
    setup = setup_of(noun, tool)
    path = tmp_path / Path(name).name
    before = OTHERS[path.suffix]
    path.write_text(before)
    installing.planned(path, setup, install=True).write()
    after = iter(path.read_text())
    assert all(character in after for character in before)
    assert installing.installed(path, setup) == "installed"
    installing.planned(path, setup, install=False).write()
    assert path.read_text() == before
    path.unlink()
    installing.planned(path, setup, install=True).write()
    (tomllib if path.suffix == ".toml" else json).loads(path.read_text())
    installing.planned(path, setup, install=False).write()
    assert not path.exists()  # it had only our entries


@pytest.mark.parametrize("before", ["", "{}", '{"a": 1}\n', '\ufeff{\r\n  // mine\r\n  "hooks": {},\r\n}'])
@pytest.mark.parametrize("tool", ["claude-code", "copilot"])
def test_what_was_there_is_restored_even_where_entries_leave_something(tool: str, before: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(before, newline="")
    installing.planned(path, setup_of("hook", tool), install=True).write()
    assert file.copy_of(path).read_bytes() == before.encode()
    installing.planned(path, setup_of("hook", tool, " --wait 5s"), install=True).write()
    assert file.copy_of(path).read_bytes() == before.encode()  # still what was there before any entry of ours
    installing.planned(path, setup_of("hook", tool), install=False).write()
    assert path.read_bytes() == before.encode()
    assert [*tmp_path.iterdir()] == [path]


def test_a_copy_from_before_a_change_of_the_owner_is_not_restored(tmp_path: Path) -> None:
    path, setup = tmp_path / "settings.json", setup_of("hook", "claude-code")
    path.write_text('{"hooks": {}}')
    installing.planned(path, setup, install=True).write()
    mine = '{"model": "x",' + path.read_text()[1:]
    path.write_text(mine)
    installing.planned(path, setup, install=False).write()
    assert json.loads(path.read_text()) == {"model": "x"}
    assert file.copy_of(path).read_text() == mine


@pytest.mark.parametrize("tool", dialects.NAMES)
def test_a_file_that_had_only_our_entries_leaves_no_trace(tool: str, tmp_path: Path) -> None:
    first, second = setup_of("hook", tool), setup_of("hook", tool, " --wait 5s")
    path = tmp_path / first.file
    path.parent.mkdir(parents=True)
    for setup, install in ((first, True), (second, True), (first, False)):
        installing.planned(path, setup, install=install).write()
    assert [*tmp_path.iterdir()] == []


def setup_of(noun: str, tool: str, options: str = "", url: str | None = None) -> Any:
    module = dialects.load(tool)
    if noun == "mcp":
        return module.mcp(SettingsScope.PROJECT, ["coordinator", "mcp"], url)
    return module.hooks(SettingsScope.PROJECT, f"coordinator hook run{options}", url, 60)


def test_an_installation_says_if_tools_find_the_program_only_in_a_virtual_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("venv/bin", "bin"):
        command = tmp_path / name / "coordinator"
        command.parent.mkdir(parents=True)
        command.touch(0o755)
    monkeypatch.setattr("sys.prefix", str(tmp_path / "venv"))
    monkeypatch.setattr("sys.base_prefix", "/usr")
    setup = setup_of("hook", "claude-code")
    monkeypatch.setenv("PATH", f"{tmp_path}/venv/bin:{tmp_path}/bin")
    assert str(tmp_path / "venv") in notes(setup)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{tmp_path}/venv/bin")
    assert notes(setup) == ""


@pytest.mark.parametrize("tool", dialects.NAMES)
def test_other_options_replace_the_entries_in_their_places(tool: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{"hooks": {"Stop": [{"command": "a"}], "Old": [{"command": "coordinator hook run --old"}]}}')
    installing.planned(path, setup_of("hook", tool), install=True).write()
    first = json.loads(path.read_text())
    assert "Old" not in first["hooks"]
    changed = setup_of("hook", tool, " --wait 5s")
    assert installing.installed(path, changed) == "outdated"
    installing.planned(path, changed, install=True).write()
    second = path.read_text()
    assert json.loads(second.replace(" --wait 5s", "")) == first
    assert second.count("--wait 5s") == first_count(first)


def first_count(settings: Any) -> int:
    return json.dumps(settings).count("coordinator hook run")


def test_a_group_with_our_hook_and_others_is_left_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    mixed = {"hooks": [{"type": "command", "command": "mine"}, {"type": "command", "command": "coordinator hook run"}]}
    path.write_text(json.dumps({"hooks": {"Stop": [mixed]}}))
    installing.planned(path, setup_of("hook", "claude-code"), install=True).write()
    installing.planned(path, setup_of("hook", "claude-code"), install=False).write()
    assert json.loads(path.read_text()) == {"hooks": {"Stop": [mixed]}}


@pytest.mark.parametrize(
    ("tool", "content", "message"),
    [
        ("claude-code", "{", "a name is missing in line 1, column 2"),
        ("claude-code", '{"hooks": []}', "hooks is a list; an object is expected"),
        ("claude-code", '{"hooks": {"Stop": "x"}}', "hooks.Stop is a text; a list is expected"),
        ("gemini", "\xff", "a value is missing"),
    ],
)
def test_a_malformed_file_is_refused_with_a_hint_and_stays(
    repository: Program, tool: str, content: str, message: str
) -> None:
    path = repository.folder / FILES[tool]
    path.parent.mkdir()
    path.write_text(content)
    error = repository.fails(78, "hook", "install", tool, "--yes")
    assert message in error["message"]
    assert str(path) in error["message"]
    assert path.read_text() == content
    assert [*path.parent.iterdir()] == [path]
    [state] = repository.json("hook", "status", tool, "--project")
    assert message in state["state"]


@pytest.mark.parametrize(
    "content", ["mcp_servers = 1\n", 'mcp_servers = {a = {command = "b"}}\n', "[a\n", "a = 1\na = 2\n"]
)
def test_toml_that_has_no_place_for_the_table_is_refused_and_stays(repository: Program, content: str) -> None:
    path = repository.folder / ".codex/config.toml"
    path.parent.mkdir()
    path.write_text(content)
    repository.fails(78, "mcp", "install", "codex", "--yes")
    assert path.read_text() == content


def test_a_file_that_is_not_text_is_refused(repository: Program) -> None:
    path = repository.folder / FILES["gemini"]
    path.parent.mkdir()
    path.write_bytes(b"{\xff}")
    assert "not UTF-8" in repository.fails(78, "hook", "install", "gemini", "--yes")["message"]
    path.unlink()
    path.mkdir()
    assert "Is a directory" in repository.fails(78, "hook", "install", "gemini", "--yes")["message"]


def test_the_status_names_the_project_of_the_repository(repository: Program) -> None:
    said = "Sessions here belong to the project {}.\n"
    assert repository.run("hook", "status", "-o", "text", COORDINATOR_PROJECT="other").stderr == said.format("other")
    for name in ("HEAD", "objects", "refs"):  # what a repository is known by
        (repository.folder / ".git" / name).mkdir()
    (repository.folder / ".git/config").write_text("[coordinator]\n\tproject = shop\n")
    assert repository.run("hook", "status", "-o", "text").stderr == said.format("shop")
    assert {entry["project"] for entry in repository.json("hook", "status")} == {"shop"}


def test_nobody_is_asked_where_nobody_answers(repository: Program) -> None:
    error = repository.fails(2, "hook", "install", "codex")
    assert error["message"] == "give --yes to make these changes without being asked"
    assert not (repository.folder / ".codex").exists()


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "settings.json"
    real.parent.mkdir()
    real.write_text("{}\n")
    link = tmp_path / "settings.json"
    link.symlink_to(real)
    installing.planned(link, setup_of("hook", "gemini"), install=True).write()
    assert link.is_symlink()
    assert "coordinator hook run" in real.read_text()


def test_a_file_that_somebody_changed_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text("{}")
    change = installing.planned(path, setup_of("hook", "gemini"), install=True)
    path.write_text('{"a": 1}')
    with pytest.raises(CoordinatorError, match="was changed in the meantime"):
        change.write()
    assert path.read_text() == '{"a": 1}'


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings.json"
    path.write_text("{}")
    change = installing.planned(path, setup_of("hook", "gemini"), install=True)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file.os, "fsync", full)
    with pytest.raises(CoordinatorError, match="No space left"):
        change.write()
    assert path.read_text() == "{}"
    assert [*tmp_path.iterdir()] == [path]


def test_installations_at_once_lose_nothing(repository: Program) -> None:
    """The second one holds the lock of the folder when the first one has computed its change, and has waited for it."""
    path = repository.folder / FILES["gemini"]
    path.parent.mkdir()
    path.write_text('{"a": 1}')
    with file.locked(path):
        started = [
            repository.start("hook", "install", "gemini", "--yes"),
            repository.start("mcp", "install", "gemini", "--yes"),
        ]
        installing.planned(path, setup_of("hook", "gemini", " --wait 1m"), install=True).write()
    for process in started:
        _, error = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, error
    found = json.loads(path.read_text())
    assert found["a"] == 1
    assert found["mcpServers"]["coordinator"]["args"] == ["mcp", "serve", "--project", "default"]
    assert len(found["hooks"]["BeforeTool"]) == 1


def test_the_users_settings_are_where_the_tool_looks_for_them() -> None:
    home = Path("/home/ada")

    def where(noun: str, tool: str, **environment: str) -> str:
        module = dialects.load(tool)
        user = SettingsScope.USER
        setup = module.mcp(user, ["coordinator"], None) if noun == "mcp" else module.hooks(user, "c", None, 60)
        return str(located(setup, user, home, environment))

    assert where("hook", "claude-code") == "/home/ada/.claude/settings.json"
    assert where("hook", "claude-code", CLAUDE_CONFIG_DIR="/c") == "/c/settings.json"
    assert where("mcp", "claude-code") == "/home/ada/.claude.json"
    assert where("mcp", "claude-code", CLAUDE_CONFIG_DIR="/c") == "/c/.claude.json"
    assert where("hook", "codex", CODEX_HOME="/x") == "/x/hooks.json"
    assert where("mcp", "codex") == "/home/ada/.codex/config.toml"
    assert where("hook", "gemini", GEMINI_CLI_HOME="/g") == "/g/.gemini/settings.json"
    assert where("hook", "copilot", COPILOT_HOME="/k") == "/k/hooks/coordinator.json"
    assert where("mcp", "copilot") == "/home/ada/.copilot/mcp-config.json"
    assert where("hook", "vscode") == "/home/ada/.copilot/hooks/coordinator.json"
    assert where("hook", "cursor") == "/home/ada/.cursor/hooks.json"


def test_the_users_settings_need_no_repository(lone: Program) -> None:
    assert lone.fails(5, "hook", "install", "codex", "--yes")["hint"] == "Go to the repository, or give --user."
    lone.json("hook", "install", "codex", "--user", "--yes")
    command = json.loads((lone.folder / ".codex/hooks.json").read_text())["hooks"]["Stop"][0]["hooks"][0]["command"]
    assert command.endswith(" hook run --dialect codex")
    listed = lone.json("hook", "status")
    assert {(one["tool"], one["scope"]): one["state"] for one in listed}[("codex", "user")] == "installed"
    assert {one["scope"] for one in listed} == {"user"}


def test_options_of_the_hook_are_written_and_the_tool_waits_longer_than_it(repository: Program) -> None:
    repository.json("hook", "install", "claude-code", "--yes", "--", "--wait", "2m", "--shared-reads")
    found = json.loads((repository.folder / FILES["claude-code"]).read_text())["hooks"]["PreToolUse"]
    [handler] = found[0]["hooks"]
    assert handler == {"type": "command", "command": "coordinator hook run --wait 2m --shared-reads", "timeout": 150}
    assert repository.json("hook", "status", "claude-code", "--project")[0]["state"] == "outdated"
    options = ("--", "--wait", "2m", "--shared-reads")
    assert repository.json("hook", "status", "claude-code", "--project", *options)[0]["state"] == "installed"


def test_hooks_over_http_go_to_the_daemon(repository: Program) -> None:
    url = "https://coordinator.agents:7420"
    options = ("--", "--wait=2m", "--hold", "until-commit", "--shared-reads")
    repository.json("hook", "install", "claude-code", "--yes", "--url", url, *options)
    found = json.loads((repository.folder / FILES["claude-code"]).read_text())["hooks"]
    [handler] = found["PreToolUse"][0]["hooks"]
    assert (handler["type"], handler["url"]) == (
        "http",
        f"{url}/v1/hooks/claude-code?project=default&wait=2m&hold=until-commit&shared_reads=true",
    )
    assert handler["timeout"] == 150
    assert handler["headers"] == {"Authorization": "Bearer $COORDINATOR_TOKEN"}
    assert found["SessionStart"][0]["hooks"][0]["command"] == (
        f"coordinator hook run --wait=2m --hold until-commit --shared-reads --url {url}"
    )
    repository.json("hook", "install", "claude-code", "--yes")  # from HTTP to the command
    assert "http" not in (repository.folder / FILES["claude-code"]).read_text()
    repository.json("hook", "install", "copilot", "--yes", "--url", url)
    repository.json("hook", "install", "copilot", "--user", "--yes", "--url", url)
    assert f'"{url}/v1/hooks/copilot"' in (repository.folder / ".copilot/hooks/coordinator.json").read_text()
    assert (
        repository.fails(2, "hook", "install", "codex", "--yes", "--", "--wiat", "1s")["hint"] == "Did you mean --wait?"
    )
    repository.json("mcp", "install", "cursor", "--yes", "--url", url)
    assert f"{url}/mcp?project=default" in (repository.folder / SERVERS["cursor"]).read_text()
    for tool in ("codex", "cursor", "gemini", "vscode"):
        assert repository.fails(5, "hook", "install", tool, "--yes", "--url", url)["hint"].startswith("Omit --url")


def test_whoever_installs_a_server_that_cannot_start_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mcp._missing(None) == ""
    monkeypatch.setattr(mcp, "find_spec", lambda _name: None)
    assert 'pip install "coordinatord[mcp]"' in mcp._missing(None)
    assert mcp._missing("https://coordinator.agents:7420") == ""  # the daemon serves it


def test_the_paragraph_for_agents_is_written_once_and_replaced(repository: Program) -> None:
    path = repository.folder / "AGENTS.md"
    path.write_text("# Shop\n\nBe kind.")
    for _ in range(2):
        repository.json("hook", "install", "codex", "--agents-md", "--yes")
    assert path.read_text().startswith(
        "# Shop\n\nBe kind.\n\n<!-- coordinator: start -->\n## Working with other agents"
    )
    assert path.read_text().count("coordinator: start") == 1
    path.write_text(path.read_text().replace("Working", "Sleeping") + "\n## Mine\n")
    repository.json("hook", "install", "codex", "--agents-md", "--yes")
    assert "Sleeping" not in path.read_text()
    repository.json("hook", "uninstall", "codex", "--agents-md", "--yes")
    assert path.read_text() == "# Shop\n\nBe kind.\n\n## Mine\n"


@pytest.mark.parametrize("before", [None, "", "# Shop", "# Shop\n", "# Shop\n\n", "# Shop\r\n\r\nBe kind.\r\n"])
def test_without_the_paragraph_for_agents_the_file_is_what_it_was_and_no_copy_is_left(
    tmp_path: Path, before: str | None
) -> None:
    path = tmp_path / "AGENTS.md"
    copy = path.with_name("AGENTS.md.coordinator-backup")
    if before is not None:
        path.write_bytes(before.encode())
    for _ in range(2):
        agents_md.planned(path, install=True).write()
    assert agents_md.PARAGRAPH.splitlines()[0] in path.read_text().splitlines()
    assert (copy.read_bytes().decode() if copy.exists() else None) == before
    for _ in range(2):
        agents_md.planned(path, install=False).write()
    assert (path.read_bytes().decode() if path.exists() else None) == before
    assert not copy.exists()


KEYS = st.sampled_from(["a", "b.c", '"x y"', "mcp_servers.db", "mcp_servers.coordinatorx"])
LINES = st.sampled_from(
    ["", "# comment", "n = 1", 't = """\n[mcp_servers.coordinator]\n"""', "l = [\n  1,\n]", "  # indented"]
)


@given(
    st.lists(LINES, max_size=3),
    st.lists(st.tuples(KEYS, st.lists(LINES, max_size=3)), max_size=4, unique_by=lambda one: one[0]),
    st.booleans(),
)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_a_table_of_toml_comes_and_goes_and_leaves_the_rest(head: list[str], tables: list[Any], ended: bool) -> None:
    lines = [*dict.fromkeys(head)]
    for key, body in tables:
        lines += [f"[{key}]", *dict.fromkeys(body)]
    before = "\n".join(lines) + ("\n" if ended and lines else "")
    path, entry = ("mcp_servers", "coordinator"), {"command": "coordinator", "args": ["mcp"]}
    data = toml.parse(before)
    after = toml.with_table(before, path, entry)
    found = toml.parse(after)
    assert found["mcp_servers"].pop("coordinator") == entry
    assert found == data or (not found.pop("mcp_servers") and found == data)
    assert after.startswith(before)
    assert toml.with_table(after, path, entry) == after
    taken = toml.removed(after, path)
    assert taken == before or (not ended and taken == before + "\n")


def test_a_table_in_the_middle_of_toml_is_replaced_and_removed_with_what_belongs_to_it() -> None:
    before = "[a]\nx = 1\n\n[mcp_servers.coordinator] # ours\ncommand = 'old'\n[mcp_servers.coordinator.env]\nA = 'b'\n\n# about b\n[b]\ny = 2\n"
    path = ("mcp_servers", "coordinator")
    after = toml.with_table(before, path, {"command": "new"})
    assert after == '[a]\nx = 1\n\n[mcp_servers.coordinator]\ncommand = "new"\n\n# about b\n[b]\ny = 2\n'
    assert toml.removed(after, path) == "[a]\nx = 1\n\n\n# about b\n[b]\ny = 2\n"
