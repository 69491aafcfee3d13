"""Places that a daemon remembers: as long as they are what they were, and no longer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.errors import ConfigurationError
from coordinator.hooks import known_places
from coordinator.hooks.known_places import KnownPlaces
from coordinator.hooks.place import locate
from coordinator.hooks.shell import DEFAULTS
from tests.hooks.repositories import git, layout

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

# What changes where a directory is, as (directory, change); both get the folder that ``layout`` fills.
CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a project is configured": ("main/src", lambda base: git(base / "main", "config", "coordinator.project", "x")),
    "a remote is added": ("main", lambda base: git(base / "main", "remote", "add", "origin", "https://h/a/b.git")),
    "work trees are shared": ("beside", lambda base: git(base / "main", "config", "coordinator.worktrees", "shared")),
    "a repository begins further in": ("main/src/deep/er", lambda base: git(base / "main/src/deep", "init", "-q")),
    "a repository begins": ("elsewhere", lambda base: git(base / "elsewhere", "init", "-q")),
    "a bare repository begins": ("elsewhere", lambda base: git(base / "elsewhere", "init", "-q", "--bare")),
    "a repository begins further out": ("elsewhere", lambda base: git(base, "init", "-q")),
    "a repository ends": ("main/src", lambda base: shutil.rmtree(base / "main/.git")),
    "an inner repository ends": ("main/src/nested", lambda base: shutil.rmtree(base / "main/src/nested/.git")),
    "a work tree is pruned": ("beside", lambda base: shutil.rmtree(base / "main/.git/worktrees/beside")),
    "a work tree is another's": (
        "beside",
        lambda base: (base / "beside/.git").write_text(f"gitdir: {base}/main/.git/worktrees/inner\n", "utf-8"),
    ),
    "a repository becomes bare": ("main/src", lambda base: git(base / "main", "config", "core.bare", "true")),
    "a directory moves, with a link in its place": (
        "main/src",
        lambda base: ((base / "main").rename(base / "moved"), (base / "main").symlink_to("moved")),
    ),
    "a link leads elsewhere": (
        "into/deep",
        lambda base: (
            (base / "library" / "deep").mkdir(),
            (base / "into").unlink(),
            (base / "into").symlink_to(base / "library"),
        ),
    ),
    "a directory is removed": ("elsewhere", lambda base: (base / "elsewhere").rmdir()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_place_is_remembered_until_what_says_so_changes(tmp_path: Path, name: str) -> None:
    layout(tmp_path)
    place, change = CHANGES[name]
    cwd = str(tmp_path / place)
    places = KnownPlaces()
    assert places.get(cwd, None) is None
    before = places.find(cwd, None)
    assert before is not None
    assert before.place == locate(cwd, {})
    assert places.get(cwd, None) is before
    change(tmp_path)
    if Path(cwd).is_dir():
        assert locate(cwd, {}) != before.place, "the change is none"
    assert places.get(cwd, None) is None
    after = places.find(cwd, None)
    assert after is None if not Path(cwd).is_dir() else after is not None and after.place == locate(cwd, {})


def test_a_given_project_is_remembered_in_addition_to_that_of_the_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    places = KnownPlaces()
    own, given = places.find(str(tmp_path), None), places.find(str(tmp_path), "given")
    assert own is not None
    assert given is not None
    assert (own.place.project, given.place.project) == (locate(str(tmp_path), {}).project, "given")
    assert places.get(str(tmp_path), None) is own
    assert places.get(str(tmp_path), "given") is given


def test_rules_are_remembered_until_their_file_changes(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    file, cwd = tmp_path / "coordinator.yaml", str(tmp_path)
    places = KnownPlaces()
    found = places.find(cwd, None)
    assert found is not None
    assert found.rules == DEFAULTS
    file.write_text('shell: [{command: deploy, locks: ["name:deploy"]}]\n', "utf-8")
    assert places.get(cwd, None) is None
    found = places.find(cwd, None)
    assert found is not None
    assert found.rules[0].pattern == "deploy"
    file.write_text("shell: 1\n", "utf-8")
    assert places.get(cwd, None) is None
    with pytest.raises(ConfigurationError):
        places.find(cwd, None)
    assert places.get(cwd, None) is None, "what is malformed is not remembered"
    file.unlink()
    assert places.find(cwd, None) is not None


def test_the_directories_that_were_asked_for_last_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_places, "MOST", 2)
    places = KnownPlaces()
    folders = [str(tmp_path / name) for name in "abc"]
    for folder in folders:
        Path(folder).mkdir()
        places.find(folder, None)
        places.get(folders[0], None)
    assert [places.get(folder, None) is not None for folder in folders] == [True, False, True]


def test_a_directory_that_is_too_deep_is_found_and_not_remembered(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * known_places.WITNESSES)
    deep.mkdir(parents=True)
    places = KnownPlaces()
    assert places.find(str(deep), None) is not None
    assert places.get(str(deep), None) is None
