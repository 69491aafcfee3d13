"""The wheel holds the program and its SQL, nothing else, and works outside the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
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


@pytest.fixture
def program(wheel: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return what starts Python on the unpacked wheel, without the checkout."""
    ZipFile(wheel).extractall(tmp_path / "wheel")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COORDINATOR_")}
    environment = {
        **kept,
        "PYTHONPATH": str(tmp_path / "wheel"),
        "HOME": str(tmp_path),
        "COORDINATOR_DATA_DIR": str(tmp_path / "data"),
    }

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)

    return start


def test_unpacked_wheel_finds_its_sql(program: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    said, _ = program("-c", PROGRAM).communicate()
    assert said.split() == [str(tmp_path / "wheel"), version(), *(file.name for file in schema.files())]


def test_unpacked_wheel_serves_on_the_embedded_database(program: Callable[..., subprocess.Popen[str]]) -> None:
    with program("-m", "coordinator", "serve", "--port", "0", "--log-format", "json") as daemon:
        try:
            assert daemon.stderr
            url = next(json.loads(line)["http"] for line in daemon.stderr if '"daemon.started"' in line)
            program("-m", "coordinator", "signal", "set", "build/state", '"green"').communicate()
            for database in ((), ("--url", url)):
                said, _ = program("-m", "coordinator", *database, "signal", "get", "build/state").communicate()
                assert json.loads(said)["value"] == "green"
        finally:
            daemon.terminate()
            daemon.communicate()
    assert daemon.returncode == 0


def test_readme_names_the_distribution_and_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    readme = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(rf"{project['name']}\[(\w+)\]", readme))
    assert named == set(project["optional-dependencies"])
