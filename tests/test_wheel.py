"""The wheel holds the program and its SQL, nothing else, and works outside the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest

from coordinator.db import schema
from coordinator.version import version

ROOT = Path(__file__).parent.parent
PROGRAM = """
from pathlib import Path
import coordinator
from coordinator.db import schema
print(Path(coordinator.__file__).parent.parent, coordinator.__version__, *(file.name for file in schema.files()))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.iterdir()
    return built


def test_wheel_is_named_for_the_distribution_and_fits_every_python(wheel: Path) -> None:
    assert wheel.name == f"coordinatord-{version()}-py3-none-any.whl"


def test_wheel_holds_modules_and_sql_and_nothing_else(wheel: Path) -> None:
    names = {PurePosixPath(name) for name in ZipFile(wheel).namelist()}
    packaged = {name for name in names if name.parts[0] == "coordinator"}
    assert {name.parts[0] for name in names - packaged} == {f"coordinatord-{version()}.dist-info"}
    assert {name.suffix for name in packaged} == {".py", ".sql", ".txt"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "coordinator").rglob("*.py")}
    assert {name.as_posix() for name in packaged if name.suffix == ".py"} == modules
    assert len([name for name in packaged if name.suffix == ".sql"]) == len(schema.files())
    assert [name.name for name in packaged if name.suffix == ".txt"] == ["order.txt"]


def test_unpacked_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    ZipFile(wheel).extractall(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(tmp_path), version(), *(file.name for file in schema.files())]


def test_readme_names_the_distribution_and_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    readme = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(rf"{project['name']}\[(\w+)\]", readme))
    assert named == set(project["optional-dependencies"])
