"""Which project and work tree a directory is in, and what a file is locked as, compared with git and with the database."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.errors import ConfigurationError
from coordinator.hooks.place import Place, locate, lockable
from coordinator.hooks.repository import find
from tests.conftest import Transaction
from tests.hooks.repositories import git, layout, run_git
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout(tmp_path_factory.mktemp("place").resolve())


def place(folder: Path | str, **environ: str) -> Place:
    return locate(str(folder), environ)


@pytest.mark.parametrize(
    "folder",
    [
        "main",
        "main/src/deep/er",
        "main/src/nested",
        "main/to-src",
        "main/to-beside/src",
        "main/.agents",
        "main/.agents/inner",
        "beside",
        "beside/src",
        "of-bare",
        "apart",
        "plain.git",
        "plain.git/objects",
        "into",
        "elsewhere",
    ],
)
def test_the_work_tree_and_the_shared_directory_are_those_that_git_finds(main: Path, folder: str) -> None:
    here = main.parent / folder
    found = place(here)
    tree = run_git(here, "rev-parse", "--show-toplevel")
    assert found.root == (tree.stdout.rstrip("\n") if tree.returncode == 0 else None)
    common = run_git(here, "rev-parse", "--path-format=absolute", "--git-common-dir")
    assert found.common == (os.path.realpath(common.stdout.rstrip("\n")) if common.returncode == 0 else None)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("main", ""),
        ("beside", "beside"),
        ("main/.agents/inner", "inner"),
        ("of-bare", "of-bare"),
        ("beside/vendor/library", "beside"),
    ],
)
def test_a_linked_work_tree_has_the_name_that_git_gave_it(main: Path, folder: str, name: str) -> None:
    assert place(main.parent / folder).worktree == name


@pytest.mark.parametrize(
    ("cwd", "path", "resource"),
    [
        ("main", "src/a.py", "src/a.py"),
        ("main/src", "a.py", "src/a.py"),
        ("main/src/deep/er", "../../a.py", "src/a.py"),
        ("main/src", "./deep//er/../new.py", "src/deep/new.py"),
        ("main", "{base}/main/src/a.py", "src/a.py"),
        ("elsewhere", "src/a.py", None),
        ("into", "a.py", "src/a.py"),
        ("main", "to-src/a.py", "src/a.py"),
        ("main", "src", "src/"),
        ("main", ".", "glob:**"),
        ("main", "src/[id]/x.py", "path:src/[id]/x.py"),
        ("main", "name:x", "path:name:x"),
        ("main", "out/secret", None),
        ("main", "../elsewhere/x", None),
        ("main", "/etc/passwd", None),
        ("main", "src/nested/b.py", "src/nested/b.py"),
        ("main", "vendor/library/src/a.py", "vendor/library/src/a.py"),
        ("main/vendor/library", "src/a.py", "vendor/library/src/a.py"),
        ("beside", "src/a.py", ".git/worktrees/beside/src/a.py"),
        ("beside/vendor/library/src", "a.py", ".git/worktrees/beside/vendor/library/src/a.py"),
        ("beside", ".", ".git/worktrees/beside/"),
        ("main", "{base}/beside/src/a.py", ".git/worktrees/beside/src/a.py"),
        ("main", "to-beside/src/a.py", ".git/worktrees/beside/src/a.py"),
        ("main", ".agents/inner/src/a.py", ".git/worktrees/inner/src/a.py"),
        ("main/.agents/inner", "../../src/a.py", "src/a.py"),
        ("of-bare", "src/a.py", ".git/worktrees/of-bare/src/a.py"),
        ("plain.git", "../of-bare/src/a.py", ".git/worktrees/of-bare/src/a.py"),
        ("plain.git", "HEAD", None),
        ("main", "src/a\nb.py", "src/"),
        ("main", "a\u202eb", "glob:**"),
        ("beside", "a\nb.py", ".git/worktrees/beside/"),
        ("main", "src/a.py ", "src/"),
        ("main", "src/\ud800.py", "src/\ufffd.py"),
        ("main", "src/\udcff.py", "src/"),
        ("main", "src/\0.py", None),
        ("main", "src/" + "x" * 5000, "src/"),
        ("main", "/".join(["d"] * 60) + "/a.py", "d/" * 31),
    ],
)
def test_a_file_is_locked_by_its_place_in_the_work_tree(main: Path, cwd: str, path: str, resource: str | None) -> None:
    assert place(main.parent / cwd).resource(path.replace("{base}", str(main.parent))) == (
        "d/" * 32 if resource == "d/" * 31 else resource
    )


def test_a_symbolic_link_that_is_renamed_or_removed_is_itself(main: Path) -> None:
    here = place(main)
    assert here.resource("out", link=True) == "out"
    assert here.resource("to-src", link=True) == "to-src"
    assert here.resource("to-src/a.py", link=True) == "src/a.py"
    assert here.resource("to-src/../src", link=True) == "src/"


def test_shared_work_trees_give_a_file_one_name(main: Path) -> None:
    beside = place(main.parent / "beside", COORDINATOR_WORKTREES="shared")
    assert (beside.worktree, beside.resource("src/a.py")) == ("beside", "src/a.py")
    assert beside.scoped("name:build") == "name:build"


def test_the_setting_of_the_repository_shares_its_work_trees(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "main")
    git(tmp_path / "main", "commit", "--quiet", "--allow-empty", "-m", "begin")
    git(tmp_path / "main", "worktree", "add", "--quiet", "../beside")
    git(tmp_path / "beside", "config", "coordinator.worktrees", "shared")
    assert place(tmp_path / "beside").resource("a.py") == "a.py"
    assert place(tmp_path / "beside", COORDINATOR_WORKTREES="separate").resource("a.py") == ".git/worktrees/beside/a.py"
    git(tmp_path / "beside", "config", "coordinator.worktrees", "shraed")
    with pytest.raises(ConfigurationError, match='worktrees "shraed" is neither separate nor shared') as raised:
        place(tmp_path / "beside")
    assert raised.value.hint == "Did you mean shared?"
    assert place(tmp_path / "beside", COORDINATOR_WORKTREES="shared").shared


@pytest.mark.parametrize("given", ["Shop", "-shop", "s" * 37, "a/b"])
def test_an_invalid_project_in_gits_configuration_is_an_error(tmp_path: Path, given: str) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "config", "coordinator.project", given)
    with pytest.raises(ConfigurationError, match="is not the name of a project"):
        place(tmp_path)
    assert place(tmp_path, COORDINATOR_PROJECT="shop").project == "shop"


@pytest.mark.parametrize(
    ("resource", "scoped"),
    [
        ("name:build", "name:build@beside"),
        ("src/**/*.py", ".git/worktrees/beside/src/**/*.py"),
        ("path:app/[id]", "path:.git/worktrees/beside/app/[id]"),
        ("glob:**", "glob:.git/worktrees/beside/**"),
    ],
)
def test_a_lock_for_any_work_tree_gets_the_scope_of_this_one(main: Path, resource: str, scoped: str) -> None:
    assert place(main).scoped(resource) == resource
    assert place(main.parent / "beside").scoped(resource) == scoped


def test_git_dir_counts_only_where_no_repository_is_found(main: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "files.git")
    home = tmp_path / "home"
    (home / "notes").mkdir(parents=True)
    given = {"GIT_DIR": str(tmp_path / "files.git"), "GIT_WORK_TREE": str(home)}
    found = place(home / "notes", **given)
    assert (found.common, found.resource("a.md")) == (str(tmp_path / "files.git"), "notes/a.md")
    assert place(main / "src", **given).resource("a.py") == "src/a.py"
    assert place(home / "notes", GIT_DIR=str(tmp_path / "nothing")).root is None
    assert place(home / "notes", GIT_DIR="a\0b").root is None


def test_the_root_that_is_set_replaces_the_work_tree(main: Path) -> None:
    base = main.parent
    found = place(main / "src", COORDINATOR_ROOT=str(base))
    assert (found.root, found.resource("a.py")) == (str(base), "main/src/a.py")


def test_a_directory_that_was_deleted_is_still_in_its_repository(main: Path) -> None:
    assert place(main / "src" / "gone" / "deeper").resource("a.py") == "src/gone/deeper/a.py"


def test_a_process_whose_directory_was_deleted_has_a_place(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.rmdir(os.getcwd())\n"
        "from coordinator.hooks.place import locate\n"
        "print(locate('', {}).root, locate('.', {'COORDINATOR_PROJECT': 'shop'}).project)"
    )
    folder = tmp_path / "gone"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert done.stdout.split() == ["None", "shop"]


@pytest.mark.parametrize(
    "content", ["", "gitdir:", "gitdir: /nowhere", "gitdir: \0", "nonsense", "gitdir: .git", "\xff" * 100]
)
def test_a_broken_entry_of_git_is_none(tmp_path: Path, content: str) -> None:
    git(tmp_path, "init", "--quiet")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / ".git").write_text(content, "latin-1")
    assert place(inner).resource("a.py") == "inner/a.py"


def test_an_entry_of_git_that_never_ends_or_has_no_reader_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".git")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / ".git").symlink_to("/dev/zero")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / ".git").symlink_to(".git")
    for folder in (tmp_path, tmp_path / "inner", tmp_path / "loop"):
        assert place(folder).root is None


# Projects ---------------------------------------------------------------------------------------------------------------

SAME = [
    "https://github.com/acme/Shop.git",
    "https://user:secret@github.com/acme/shop",
    "http://github.com:8080/acme/shop/",
    "ssh://git@github.com:22/acme/shop.git",
    "git@github.com:acme/shop.git",
    "github.com:/acme/shop",
    "git://GitHub.com/acme/shop.git",
]


def project(folder: Path, **remotes: str) -> str:
    skeleton(folder, "".join(f'[remote "{name}"]\n\turl = {url}\n' for name, url in remotes.items()))
    return place(folder).project


def skeleton(folder: Path, config: str) -> None:
    for name in ("objects", "refs"):
        (folder / ".git" / name).mkdir(parents=True, exist_ok=True)
    (folder / ".git" / "HEAD").touch()
    (folder / ".git" / "config").write_text(config, "utf-8", errors="surrogatepass")


def test_clones_of_one_remote_are_one_project_however_its_address_is_written(tmp_path: Path) -> None:
    assert {project(tmp_path, origin=url) for url in SAME} == {"shop-c566806a"}
    assert project(tmp_path, origin="git@gitlab.com:acme/shop.git") != project(tmp_path, origin=SAME[0])
    assert project(tmp_path, fork=SAME[0]) == project(tmp_path, origin=SAME[0])
    assert project(tmp_path, fork="a:b", origin=SAME[0], other="c:d") == project(tmp_path, origin=SAME[0])


def test_the_name_of_a_project_never_changes(tmp_path: Path) -> None:
    assert project(tmp_path, origin=SAME[0]) == "shop-c566806a"


def test_without_a_remote_the_work_trees_and_clones_of_a_repository_are_one_project(main: Path, tmp_path: Path) -> None:
    base = main.parent
    git(tmp_path, "clone", "--quiet", str(main), "clone")
    git(tmp_path, "clone", "--quiet", f"file://{main}", "by-url")
    folders = [
        main,
        main / "src",
        main / "vendor" / "library",
        main / ".agents" / "inner",
        base / "beside",
        base / "apart",
    ]
    assert {place(folder).project for folder in [*folders, tmp_path / "clone", tmp_path / "by-url"]} == {
        place(main).project
    }
    assert place(main).project.startswith("main-")
    assert place(base / "library").project != place(main).project
    assert place(main / "src" / "nested").project != place(main).project


def test_a_project_can_be_named(main: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "config", "coordinator.project", "shop")
    assert place(tmp_path).project == "shop"
    assert place(tmp_path, COORDINATOR_PROJECT="other").project == "other"
    assert place(main.parent / "elsewhere").project == "default"


def test_the_configuration_is_read_as_git_reads_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    config = tmp_path / ".git" / "config"
    for value in [
        "plain",
        '"quo ted"',
        "a # comment",
        '"a # b" ; c',
        r"back\\slash",
        r'"in \"side\""',
        "con\\\ntinued",
        "two  words  ",
        "",
    ]:
        config.write_text(
            f'[core]\n\tbare = false\n[Coordinator]\n\tPROJECT = {value}\n[other "x"] project = no\n', "utf-8"
        )
        asked = run_git(tmp_path, "config", "coordinator.project")
        repository = find(str(tmp_path))
        assert repository is not None
        assert repository.settings()["coordinator.project"] == [asked.stdout.rstrip("\n")], value


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=40, deadline=None)
def test_no_configuration_and_no_address_raises_or_gives_an_invalid_name(
    tmp_path_factory: pytest.TempPathFactory, config: str, address: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    quoted = address.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    skeleton(folder, f'[remote "origin"]\nurl = "{quoted}"\n[x]\n{config}')
    assert set(place(folder).project) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    assert 0 < len(place(folder).project) <= 36
    assert place(folder).project[0] not in "-_"


# Hostile paths ------------------------------------------------------------------------------------------------------------

KNOWN = [
    "..",
    ".",
    "",
    "src",
    "out",
    "to-src",
    "to-beside",
    "deep",
    "a.py",
    "name:x",
    "glob:*",
    "[",
    "*",
    " ",
    "\n",
    "\\",
    "C:",
]
PATHS = (
    st.lists(st.sampled_from(KNOWN) | st.text(max_size=8), max_size=40).map("/".join).map(lambda path: path.lstrip("/"))
)


async def test_the_database_accepts_the_lock_of_any_path(tx: Transaction, main: Path, seed: int) -> None:
    chance = random.Random(seed)
    signs = [*map(chr, range(0x250)), *map(chr, chance.choices(range(0x110000), k=600))]
    paths = [
        "/".join(chance.choices([*KNOWN, "".join(chance.choices(signs, k=3))], k=chance.randrange(40)))
        for _ in range(200)
    ]
    paths += [f"src/{sign}x{sign}.py" for sign in signs]
    places = [place(main), place(main.parent / "beside" / "src")]
    found = [here.resource(path) for here in places for path in paths]
    locks = [resource.encode(errors="strict").decode() for resource in found if resource is not None]
    kinds = await tx.connection.fetch("select (coordinator.lock_parse(r)).kind from unnest($1::text[]) r", locks)
    for resource, (kind,) in zip(locks, kinds, strict=True):
        assert kind == ("glob" if resource == "glob:**" else "directory" if resource.endswith("/") else "path"), (
            resource
        )


@given(st.text(max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_lock_covers_the_path_that_it_represents(text: str) -> None:
    found = lockable(text.strip("/"))
    if found != "glob:**":
        literal = found.removeprefix("path:")
        assert literal == text.strip("/") or (literal.endswith("/") and text.strip("/").startswith(literal))


@given(PATHS)
@settings(max_examples=60, deadline=None)
def test_the_name_of_a_file_does_not_depend_on_who_asks(main: Path, path: str) -> None:
    absolute = f"{main}/src/{path}"
    one = place(main).resource(absolute)
    assert place(main.parent / "beside").resource(absolute) == one
    assert place(main / "src").resource(path) == one
    assert place(main / ".agents" / "inner", GIT_DIR=str(main.parent / "plain.git")).resource(absolute) == one


def test_a_repository_within_another_can_be_part_of_it_for_all(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer/lib/inner"
    skeleton(outer, "")
    skeleton(inner, "")
    own = place(inner)
    assert own.resource("a.py") == "a.py"
    skeleton(inner, "[coordinator]\n\troot = ../..\n")
    (inner / "src").mkdir()
    for folder in (inner, inner / "src"):
        within = place(folder)
        assert within.project == place(outer).project != own.project
        assert within.resource(str(inner / "a.py")) == place(outer).resource("lib/inner/a.py") == "lib/inner/a.py"
    skeleton(inner, "[coordinator]\n\troot = \0\n")
    assert place(inner).resource("a.py") == "a.py"


def test_where_case_does_not_matter_a_file_has_the_name_that_its_directory_gives_it(tmp_path: Path) -> None:
    skeleton(tmp_path, "[core]\n\tignorecase = true\n")
    (tmp_path / "Src").mkdir()
    (tmp_path / "Src/App.py").touch()
    (tmp_path / "Src/\N{LATIN SMALL LETTER E WITH ACUTE}.py").touch()
    here = place(tmp_path)
    for spelled in ("Src/App.py", "src/app.py", "SRC/../src/APP.PY"):
        assert here.resource(spelled) == "Src/App.py"
    assert here.resource("src/E\N{COMBINING ACUTE ACCENT}.PY") == "Src/\N{LATIN SMALL LETTER E WITH ACUTE}.py"
    assert here.resource("src/New.py") == "Src/New.py"
    assert here.resource("..") is None
    assert here.resource(str(tmp_path)) == here.resource(".")
    skeleton(tmp_path, "[core]\n\tignorecase = false\n")
    assert place(tmp_path).resource("src/app.py") == "src/app.py"


def test_a_path_with_very_many_directories_is_replaced_by_the_one_above_them(main: Path) -> None:
    here = place(main)
    deep = "d/" * 2000
    assert here.resource(f"{deep}x") == here.resource("d/" * 50 + "x") == "d/" * 32
    assert here.resource(f"{deep}{'../' * 2000}x") == "x"
    assert here.resource(f"{'../' * 2000}{main}/x") == "x"


def test_a_path_of_megabytes_takes_no_longer_than_to_read_it(main: Path) -> None:
    here = place(main)
    assert here.resource("src/../" * 1_000_000 + "src/a.py") == "src/a.py"  # a program may shorten it
    assert here.resource("d/" * 4_000_000 + "a.py") == "d/" * 32
    assert here.resource("d" * 8_000_000) == "glob:**"
    for folder in ("d/" * 4_000_000, "d" * 8_000_000, "\0"):
        assert locate(f"{main}/{folder}", {}).project
