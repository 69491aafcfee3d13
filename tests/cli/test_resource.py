"""What a path on the command line is locked as."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator import config
from coordinator.cli import resource
from coordinator.errors import ConfigurationError, InvalidArgument
from tests.cli.conftest import Program
from tests.hooks.repositories import layout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in ("src/deep/x.py", "src/a.py", "app/[slug]/page.tsx", "app/s/page.tsx", "name:x", "v1/conf"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tree / ".git").write_text("gitdir: elsewhere", "ascii")  # as in a second work tree
    (tree / "link").symlink_to("src", target_is_directory=True)
    (tree / "conf").symlink_to("v1/conf")
    (tree / "out").symlink_to(tmp_path)
    return tree


CASES = [
    ("", "src/a.py", "src/a.py"),
    ("src", "a.py", "src/a.py"),
    ("src/deep", "../a.py", "src/a.py"),
    ("src", "./new.py", "src/new.py"),
    ("src", "../docs/new/", "docs/new/"),
    ("", "src", "src/"),
    ("src", ".", "src/"),
    ("src/deep", "..", "src/"),
    ("src", "{tree}/app/s", "app/s/"),
    ("", ".", "glob:**"),
    ("src", "*.py", "src/*.py"),
    ("src", "../app/**/x?", "app/**/x?"),
    ("src", "**", "src/**"),
    ("app/[slug]", "*.tsx", "app/[[]slug]/*.tsx"),
    ("app", "[slug]/page.tsx", "path:app/[slug]/page.tsx"),
    ("app", "[slug]", "path:app/[slug]/"),
    ("app", "[slug]/new.tsx", "app/[slug]/new.tsx"),
    ("app", "path:[slug]/new.tsx", "path:app/[slug]/new.tsx"),
    ("", "name:x", "name:x"),
    ("", "./name:x", "path:name:x"),
    ("src", "path:a.py", "src/a.py"),
    ("src", "glob:a.p[y]", "glob:src/a.p[y]"),
    ("", "link/a.py", "src/a.py"),
    ("", "link", "src/"),
    ("", "link/*.py", "src/*.py"),
    ("", "conf", "v1/conf"),
    ("", "out", "out/"),
]


@pytest.mark.parametrize(("folder", "text", "found"), CASES)
def test_a_file_has_one_name_wherever_it_is_named(
    tree: Path, monkeypatch: pytest.MonkeyPatch, folder: str, text: str, found: str
) -> None:
    monkeypatch.chdir(tree / folder)
    root = resource.root_of(config.Config())
    assert root == tree
    assert resource.read(text.format(tree=tree), root) == found


def test_a_given_root_is_used_from_elsewhere(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = resource.root_of(config.Config(root=tree / "link"))
    assert root == tree / "src"
    assert resource.read("a.py", root) == "a.py"
    assert resource.read("deep", root) == "deep/"
    with pytest.raises(ConfigurationError, match="is not a directory"):
        resource.root_of(config.Config(root=tree / "nowhere"))


def test_without_a_root_a_path_stays_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("src").mkdir()
    Path("[a]").touch()
    if any((folder / ".git").exists() for folder in tmp_path.parents):
        pytest.fail("the temporary directory is in a git work tree")
    for text, found in {"x/../y": "x/../y", "src": "src/", "*.py": "*.py", "[a]": "path:[a]", "/etc": "/etc/"}.items():
        assert resource.read(text, resource.root_of(config.Config())) == found


@pytest.mark.parametrize("text", ["../x", "/etc/passwd", "../*.py", "src/../../x", "path:../x", "/*"])
def test_a_path_outside_of_the_root_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(InvalidArgument, match="is outside of") as raised:
        resource.read(text, tree)
    assert "--root" in (raised.value.hint or "")


def within(program: Program, folder: Path) -> Program:
    folder.mkdir(parents=True, exist_ok=True)
    inner = Program(folder, {})
    inner.environment = program.environment
    return inner


def test_two_agents_that_name_one_file_from_two_directories_exclude_each_other(
    program: Program, tmp_path: Path
) -> None:
    one, two = [program.text("agent", "register", name, "--ttl", "1h").strip() for name in "ab"]
    (tmp_path / ".git").mkdir()
    root, src = within(program, tmp_path), within(program, tmp_path / "src")
    taken = src.run("lock", "acquire", "a.py", "--agent", one, "--output", "text")
    assert taken.returncode == 0
    assert taken.stderr == '"a.py" means src/a.py\n'
    assert root.run("lock", "acquire", "src/a.py", "--agent", two).returncode == 4
    assert src.run("lock", "check", "a.py", "--agent", two).returncode == 4
    assert src.run("lock", "check", "--stdin0", "--agent", two, stdin=b"src/a.py\0").returncode == 4
    assert root.run("lock", "run", "src", "--", "true").returncode == 4
    assert src.run("lock", "release", "a.py", "--agent", one, "--token", taken.stdout.strip()).returncode == 0
    outside = src.run("lock", "acquire", "../../x", "--agent", one)
    assert outside.returncode == 5
    assert "is outside of" in outside.stderr


def test_the_command_line_calls_a_file_what_hooks_call_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a linked work tree, and in a submodule."""
    main = layout(tmp_path.resolve())
    for folder, text, found in (
        ("beside/src", "a.py", ".git/worktrees/beside/src/a.py"),
        ("beside", "src/*.py", ".git/worktrees/beside/src/*.py"),
        ("beside", "path:src/[id].py", "path:.git/worktrees/beside/src/[id].py"),
        ("beside", ".", "glob:.git/worktrees/beside/**"),
        ("beside/src", "name:build", "name:build"),
        ("beside/src", ".git/worktrees/beside/src/a.py", ".git/worktrees/beside/src/a.py"),
        ("main/vendor/library", "src/a.py", "vendor/library/src/a.py"),
        ("beside/vendor/library/src", "a.py", ".git/worktrees/beside/vendor/library/src/a.py"),
        ("main/src", "a.py", "src/a.py"),
    ):
        monkeypatch.chdir(main.parent / folder)
        assert resource.spelled(text, config.Config()) == found
    monkeypatch.chdir(main.parent / "beside")
    assert resource.spelled("src/a.py", config.Config(worktrees="shared")) == "src/a.py"
    assert resource.spelled("src/a.py", config.Config(root=Path("none"))) == "src/a.py"


def test_a_lock_is_released_by_its_name_after_its_file_became_a_directory(program: Program, tmp_path: Path) -> None:
    agent = program.text("agent", "register", "builder", "--ttl", "1h").strip()
    (tmp_path / ".git").mkdir()
    root = within(program, tmp_path)
    token = root.text("lock", "acquire", "build", "--agent", agent).strip()
    (tmp_path / "build").mkdir()
    assert root.run("lock", "renew", "build", "--agent", agent, "--token", token).returncode == 0
    assert root.run("lock", "release", "build", "--agent", agent, "--token", token).returncode == 0


def test_a_file_whose_name_has_brackets_is_locked_and_found_by_its_name(program: Program, tmp_path: Path) -> None:
    one, two = [program.text("agent", "register", name, "--ttl", "1h").strip() for name in "ab"]
    root = within(program, tmp_path)
    name = "app/[user-id]/page.tsx"  # as a class, r-i is a reversed range
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    assert root.run("lock", "acquire", name, "--agent", one).returncode == 0
    assert root.run("lock", "check", name, "--agent", two).returncode == 4
    assert root.run("lock", "run", f"path:{name}", "--", "true").returncode == 4
    assert root.run("lock", "run", "app", "--", "true").returncode == 4
    assert root.run("lock", "run", "app/[[]user-id]/*", "--", "true").returncode == 4
