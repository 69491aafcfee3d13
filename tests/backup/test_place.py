"""The directory of backups: what counts as one, and what retention deletes. No database is needed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from coordinator.backup import place
from coordinator.errors import BackupFailed, ConfigurationError, NotFound
from coordinator.model.backup import FORMAT, PRODUCT, BackupCheck, Manifest
from tests.cli.conftest import Program
from tests.waiting import DEADLINE_S

NOW = datetime.now(UTC)


def manifest(name: str, age: timedelta, origin: str = "1/2", files: dict[str, int] | None = None) -> Manifest:
    return Manifest(
        product=PRODUCT, format=FORMAT, backup=name, program="0.1.0", postgres="18.6", pg_dump="18.6", restores_into=18,
        origin=origin, database="d", encoding="UTF8", started_at=NOW - age, ended_at=NOW - age, migrations=[], tables={},
        sequences={}, objects={}, compressed=[], files=files or {"toc.dat": 3},
    )  # fmt: skip


def made(folder: Path, age: timedelta, origin: str = "1/2") -> place.Found:
    """Make a backup of this age."""
    folder.mkdir(exist_ok=True)
    with place.begin(folder, NOW - age) as unfinished:
        unfinished.dump.mkdir()
        (unfinished.dump / "toc.dat").write_text("abc", "ascii")
        path = unfinished.finish(manifest(unfinished.name, age, origin))
    return place.find(folder, path.name)


def names(folder: Path) -> list[str]:
    return [each.path.name for each in place.found(folder)]


def test_a_backup_counts_from_the_moment_it_has_its_name(tmp_path: Path) -> None:
    with place.begin(tmp_path, NOW) as unfinished:
        unfinished.dump.mkdir()
        (unfinished.dump / "toc.dat").write_text("abc", "ascii")
        assert names(tmp_path) == []
        assert place.remove_remains(tmp_path) == []
        assert unfinished.path.exists(), "it is being written"
        unfinished.finish(manifest(unfinished.name, timedelta()))
    assert names(tmp_path) == [unfinished.name]
    assert oct((tmp_path / unfinished.name).stat().st_mode & 0o777) == "0o700"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with suppress(RuntimeError), place.begin(tmp_path, NOW) as unfinished:
        unfinished.dump.mkdir()
        (unfinished.dump / "12.dat.gz").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_program_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    """Also while only a pg_dump of it lives, which has the lock from it."""
    script = (
        "import sys, pathlib, datetime; from coordinator.backup import place\n"
        "with place.begin(pathlib.Path(sys.argv[1]), datetime.datetime.now(datetime.UTC)) as u:\n"
        "    u.dump.mkdir(); (u.dump / 'toc.dat').touch(); print(flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        (path,) = tmp_path.iterdir()
        place.remove_remains(tmp_path)
        assert path.exists()
        process.kill()
        process.wait(DEADLINE_S)
    other = os.open(path / place.LOCK, os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    place.remove_remains(tmp_path)
    assert path.exists()
    os.close(other)
    place.remove_remains(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_retention_deletes_old_backups_of_the_database_and_never_the_last_good_one(tmp_path: Path) -> None:
    day = timedelta(days=1)
    old, verified, older = made(tmp_path, 40 * day), made(tmp_path, 50 * day), made(tmp_path, 60 * day)
    place.write_verification(verified, BackupCheck(NOW, 1.0))
    other = made(tmp_path, 90 * day, origin="1/3")
    assert place.prune(tmp_path, "1/2", 30 * day) == [older.path.name]
    assert names(tmp_path) == [old.path.name, verified.path.name, other.path.name]
    place.write_verification(old, BackupCheck(NOW, 1.0, "table x is missing"))
    new = made(tmp_path, day)
    place.write_verification(new, BackupCheck(NOW, 1.0, "table x is missing"))
    assert place.prune(tmp_path, "1/2", 30 * day) == [old.path.name], "the only good one is older"
    assert place.find(tmp_path, None).path == verified.path


def test_retention_leaves_what_is_not_of_a_backup(tmp_path: Path) -> None:
    day = timedelta(days=1)
    folder, elsewhere = tmp_path / "backups", tmp_path / "elsewhere"
    outside = made(elsewhere, 40 * day)
    doomed = made(folder, 40 * day)
    made(folder, day)
    (folder / "notes.txt").touch()
    (folder / "20200101T000000Z-00000000").mkdir()  # has no manifest
    (folder / "20200101T000000Z-00000001").symlink_to(outside.path)
    (folder / "20200101T000000Z-00000002.deleted").symlink_to(outside.path)
    (doomed.path / "mine.txt").touch()
    (doomed.path / "dump" / "1.dat.gz").symlink_to(outside.path / "dump" / "toc.dat")
    assert len(names(folder)) == 2
    assert place.prune(folder, "1/2", 30 * day) == [doomed.path.name]
    assert place.remove_remains(folder) == [folder / f"{doomed.path.name}.deleted"]
    assert [path.name for path in (folder / f"{doomed.path.name}.deleted").iterdir()] == ["mine.txt"]
    assert (outside.path / "dump" / "toc.dat").exists()
    assert {"notes.txt", "20200101T000000Z-00000000", "20200101T000000Z-00000001"} <= {p.name for p in folder.iterdir()}


def test_a_damaged_backup_is_not_good(tmp_path: Path) -> None:
    good, cut = made(tmp_path, timedelta(days=1)), made(tmp_path, timedelta())
    (cut.path / "dump" / "toc.dat").write_text("ab", "ascii")
    assert [each.shown().status for each in place.found(tmp_path)] == ["damaged", "good"]
    assert place.find(tmp_path, None).path == good.path
    with pytest.raises(BackupFailed, match=r"toc\.dat has 2 bytes instead of 3"):
        place.find(tmp_path, cut.path.name)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is damaged"),
        (b"{}", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b'{"product": 1e999}', "is damaged"),
        (msgspec.json.encode({"product": PRODUCT, "format": FORMAT}), "is damaged"),
        (msgspec.json.encode({"product": "other", "format": FORMAT}), "is not that of a backup"),
        (msgspec.json.encode({"product": PRODUCT, "format": FORMAT + 1}), "a newer program made it, in format 2"),
        (None, "is missing"),
    ],
    ids=range(9),
)
def test_a_manifest_that_cannot_be_read_is_listed_as_such_and_never_used_or_deleted(
    tmp_path: Path, content: bytes | None, fault: str
) -> None:
    found, good = made(tmp_path, timedelta(days=40)), made(tmp_path, timedelta())
    if content is None:
        (found.path / "manifest.json").unlink()
    else:
        (found.path / "manifest.json").write_bytes(content)
    assert names(tmp_path) == [good.path.name]
    first, second = place.listed(tmp_path)
    assert (first.status, first.fault, second.backup) == ("good", None, found.path.name)
    assert second.status == ("newer" if "newer" in fault else "damaged")
    assert fault in (second.fault or "")
    assert second.started_at == found.manifest.started_at.replace(microsecond=0)
    with pytest.raises(BackupFailed, match=fault):
        place.find(tmp_path, found.path.name)
    assert place.prune(tmp_path, "1/2", timedelta(days=1)) == []
    assert found.path.exists()


def test_a_directory_that_was_renamed_is_listed_with_the_name_of_its_backup(tmp_path: Path) -> None:
    found = made(tmp_path, timedelta())
    found.path.rename(tmp_path / "20260101T000000Z-00000000")
    (row,) = place.listed(tmp_path)
    assert (row.status, row.backup) == ("renamed", "20260101T000000Z-00000000")
    assert found.manifest.backup in (row.fault or "")


def test_a_verification_that_cannot_be_read_counts_as_a_fault_until_the_next_one(tmp_path: Path) -> None:
    found = made(tmp_path, timedelta())
    (found.path / "verification.json").write_bytes(b'{"at": ')
    (row,) = place.listed(tmp_path)
    assert (row.status, row.fault) == ("differs", "verification.json is damaged")
    place.write_verification(place.find(tmp_path, found.path.name), BackupCheck(NOW, 1.0))
    assert place.listed(tmp_path)[0].status == "good"


def test_the_list_says_what_to_do_about_each_backup_that_is_not_good(tmp_path: Path) -> None:
    found = made(tmp_path, timedelta())
    (found.path / "manifest.json").write_text("{")
    said = Program(tmp_path, {}).run("backup", "list", "--dir", str(tmp_path), "--output", "text")
    assert found.path.name in said.stdout
    assert f'{found.path.name} has status "damaged": manifest.json is damaged. Restore another one.' in said.stderr
    said = Program(tmp_path, {}).run("backup", "list", "--dir", str(tmp_path), "--output", "json")
    (row,) = msgspec.json.decode(said.stdout)
    assert (row["status"], row["fault"], row["rows"], said.stderr) == ("damaged", "manifest.json is damaged", None, "")


@pytest.mark.parametrize("name", ["20269901T000000Z-00000000", "notes", "x" * 300, "\0"])
def test_what_has_another_name_is_not_a_backup(tmp_path: Path, name: str) -> None:
    with suppress(OSError, ValueError):
        (tmp_path / name).mkdir()
    assert place.listed(tmp_path) == []
    with pytest.raises(NotFound):
        place.find(tmp_path, name)


def test_a_manifest_names_no_file_outside_its_dump(tmp_path: Path) -> None:
    found = made(tmp_path, timedelta())
    hostile = manifest(found.path.name, timedelta(), files={"../manifest.json": 3, "toc.dat": 3})
    (found.path / "manifest.json").write_bytes(msgspec.json.encode(hostile))
    assert not place.found(tmp_path)[0].good


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file"):
        place.make(tmp_path / "file" / "below")
    assert place.found(tmp_path / "absent") == []
