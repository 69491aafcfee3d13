"""Which PostgreSQL runs: the wheel's, the system's, PATH's; for a cluster, one of its own major version."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator import embedded
from coordinator.embedded import binaries
from coordinator.errors import ConfigurationError
from tests.embedded.process import QUICK, query

wheel = pytest.mark.skipif(importlib.util.find_spec(binaries.WHEEL) is None, reason="the wheel is not installed")


def folder_of(major: int) -> Path:
    """Find a folder with that major version, or skip the test."""
    for folder in binaries.folders():
        version = subprocess.run([folder / "postgres", "--version"], capture_output=True, check=True, text=True).stdout
        if f"(PostgreSQL) {major}." in version:
            return folder
    return pytest.skip(f"no PostgreSQL {major} here")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Act like a machine without wheel and without PostgreSQL."""
    monkeypatch.setattr(binaries, "WHEEL", "no_such_package")
    monkeypatch.setattr(binaries, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", "/nowhere")


@wheel
def test_wheel_comes_first_newest_first_and_is_not_imported() -> None:
    program = (
        "import sys; from coordinator.embedded import binaries; print(*binaries.folders(), sep='\\n');"
        "assert binaries.WHEEL not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    folders = done.stdout.splitlines()
    assert [Path(folder).parent.name for folder in folders[:2]] == ["pginstall18", "pginstall"]


@pytest.mark.parametrize("major", [15, 16])
async def test_existing_cluster_gets_binaries_of_its_own_major(tmp_path: Path, major: int) -> None:
    async with embedded.run(tmp_path, bin_dir=folder_of(major), settings=QUICK) as server:
        assert server.version.startswith(f"{major}.")
        await query(server.dsn, "create table kept as select 1 as it")
    async with embedded.run(tmp_path, settings=QUICK) as server:
        assert server.version.startswith(f"{major}.")
        assert await query(server.dsn, "select it from kept") == 1


async def test_cluster_of_a_major_that_is_not_here_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("9.6\n")
    (tmp_path / "postgres" / "coordinator.conf").touch()
    present = next(binaries.folders())
    with pytest.raises(ConfigurationError, match="made by PostgreSQL 9") as caught:
        async with embedded.run(tmp_path):
            pass
    hint = caught.value.hint or ""
    assert str(present) in hint
    assert all(way in hint for way in ("pg_upgrade", "pg_dump", "--data-dir", "Install PostgreSQL 9"))


@pytest.mark.usefixtures("bare")
async def test_machine_without_postgresql_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no usable PostgreSQL") as caught:
        async with embedded.run(tmp_path):
            pass
    assert "coordinator[embedded]" in (caught.value.hint or "")
    assert "apt install postgresql" in (caught.value.hint or "")


async def test_given_folder_without_the_programs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=str(tmp_path)) as caught:
        async with embedded.run(tmp_path / "data", bin_dir=tmp_path):
            pass
    assert "not both there" in (caught.value.detail or "")


@pytest.mark.parametrize("linked", ["folder", "programs"])
async def test_path_entries_may_be_links(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch, linked: str
) -> None:
    real = next(binaries.folders())
    entry = tmp_path / "bin"
    if linked == "folder":
        entry.symlink_to(real)
    else:
        entry.mkdir()
        for name in ("postgres", "initdb"):
            (entry / name).symlink_to(real / name)
    monkeypatch.setattr(binaries, "WHEEL", "no_such_package")
    monkeypatch.setattr(binaries, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", f"/nowhere:{entry}")
    assert list(binaries.folders()) == [real]
    async with embedded.run(made, settings=QUICK) as server:
        assert await query(server.dsn, "select 1") == 1


async def test_broken_programs_are_passed_over(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    good = next(binaries.folders())
    monkeypatch.setattr(binaries, "folders", lambda: iter([tmp_path, good]))
    async with embedded.run(made, settings=QUICK) as server:
        assert server.bin_dir == good
