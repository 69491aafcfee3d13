"""pg_dump and pg_restore: which are chosen, and what their arguments show."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.backup import programs
from coordinator.errors import BackupFailed, ConfigurationError, CoordinatorError, DatabaseBusy, DatabaseUnavailable
from coordinator.model.address import credentials_apart, with_database, without_password


def fake(folder: Path, version: str) -> Path:
    folder.mkdir()
    for name in ("pg_dump", "pg_restore"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n", "utf-8")
        (folder / name).chmod(0o755)
    return folder


async def test_the_oldest_that_is_as_new_as_the_server_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [fake(tmp_path / version, version) for version in ("18.1", "15.9", "17.2", "17.5", "16.0")]
    monkeypatch.setattr(programs.binaries, "folders", lambda *_: iter(folders))
    chosen = {least: (await programs.choose(None, least, what="the server")).version for least in range(15, 19)}
    assert chosen == {15: "15.9", 16: "16.0", 17: "17.5", 18: "18.1"}
    with pytest.raises(ConfigurationError, match="19 or newer on this machine") as raised:
        await programs.choose(None, 19, what="the server")
    assert "postgresql-client-19" in (raised.value.hint or "")
    assert "15.9" in raised.value.message
    with pytest.raises(ConfigurationError, match="18 or newer in"):
        await programs.choose(folders[1], 18, what="the server")
    monkeypatch.chdir(tmp_path)  # the programs run in another directory
    assert await programs.choose(Path("16.0"), 16, what="the server") == programs.Programs(tmp_path / "16.0", "16.0")


@pytest.mark.parametrize(
    ("address", "bare", "password"),
    [
        ("postgresql:///db", "postgresql:///db", None),
        ("postgresql:///db?host=/run/x&password=a%26b", "postgresql:///db?host=/run/x", "a&b"),
        (
            "postgresql://u:p%40@h1:5432,h2:5433/db?sslmode=require",
            "postgresql://u@h1:5432,h2:5433/db?sslmode=require",
            "p@",
        ),
        ("postgresql://[::1]:5432/db", "postgresql://[::1]:5432/db", None),
        ("postgresql://u@/d?options=-c%20a%3Db", "postgresql://u@/d?options=-c%20a%3Db", None),
    ],
)
def test_a_password_is_in_no_argument(address: str, bare: str, password: str | None) -> None:
    assert credentials_apart(address) == (bare, {"password": password} if password else {})
    assert without_password(address) == bare


def test_another_database_of_a_server_keeps_the_rest_of_the_address() -> None:
    assert with_database("postgresql:///db?host=/run&dbname=x", "n") == "postgresql:///n?host=/run"
    assert with_database("postgresql://u:p@h1,h2/db?sslmode=require", "n") == "postgresql://u:p@h1,h2/n?sslmode=require"


async def test_the_password_of_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="sslpassword"):
        await programs.run(tmp_path / "pg_dump", "postgresql://h/d?sslkey=/k&sslpassword=s", [])


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ("pg_dump: error: could not write to file: No space left on device", BackupFailed),
        ("pg_dump: error: could not obtain lock on relation", DatabaseBusy),
        ("pg_dump: error: server closed the connection unexpectedly", DatabaseUnavailable),
        ("", BackupFailed),
    ],
    ids=["full", "locked", "lost", "silent"],
)
async def test_what_a_program_says_decides_what_to_do(tmp_path: Path, says: str, error: type[CoordinatorError]) -> None:
    program = tmp_path / "pg_dump"
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 3\n", "utf-8")
    program.chmod(0o755)
    with pytest.raises(error) as raised:
        await programs.run(program, "postgresql:///db", [])
    assert type(raised.value) is error
    assert raised.value.hint
