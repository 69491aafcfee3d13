"""Unusual data directories: odd paths, another owner, no permission, a full disk, other accounts."""

from __future__ import annotations

import ast
import contextlib
import errno
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

import coordinator
from coordinator import embedded
from coordinator.backup import verify
from coordinator.embedded import account, cluster, launcher, processes, socket_folder
from coordinator.errors import ConfigurationError
from tests.embedded.process import QUICK, Daemon, query, soon, until

NAMELESS = 54321
MAKERS = {f"tempfile.{name}" for name in ("mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory")}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def runtime_dir(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder that can contain socket folders."""
    monkeypatch.setattr(socket_folder, "parents", lambda: [short_path])
    return short_path


@pytest.fixture
def far(own: Path) -> Path:
    """Return a data directory whose path is too long for a socket."""
    data_dir = own.parent / ("long" * 20) / ("longer" * 20)
    data_dir.parent.mkdir()
    return own.rename(data_dir)


async def test_long_path_gets_a_short_private_socket_folder(far: Path, runtime_dir: Path) -> None:
    async with embedded.run(far, settings=QUICK) as server:
        assert server.socket_dir.parent == runtime_dir
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        assert await query(server.dsn, "select 1") == 1
        found = embedded.find(far)
        assert found
        assert found.dsn == server.dsn
    assert list(runtime_dir.iterdir()) == [], "nothing is left behind"


async def test_the_error_on_a_machine_without_a_short_path_says_so(far: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_folder, "parents", lambda: [far])
    with pytest.raises(ConfigurationError, match="too long") as caught:
        async with embedded.run(far, settings=QUICK):
            pass
    assert "--data-dir" in (caught.value.hint or "")
    assert not list(far.glob("coordinator-*"))


async def test_deleted_socket_folder_is_created_again(far: Path, runtime_dir: Path) -> None:
    async with embedded.run(far, settings=QUICK) as server:
        shutil.rmtree(server.socket_dir)
        await soon(lambda: embedded.find(far) is not None, "found again")
        assert await query(server.dsn, "select 1") == 1


async def test_socket_folder_of_somebody_else_is_not_used(tmp_path: Path, far: Path, runtime_dir: Path) -> None:
    async with embedded.run(far, settings=QUICK) as server:
        expected = server.socket_dir
    trap = tmp_path / "trap"
    trap.mkdir(mode=0o700)
    expected.symlink_to(trap)
    async with embedded.run(far, settings=QUICK) as server:
        assert server.socket_dir != expected
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        assert await query(server.dsn, "select 1") == 1
    assert list(trap.iterdir()) == []


@pytest.mark.parametrize("name", ["-with space 50%&?#='größe", 'comma, and "quotes"'])
async def test_path_with_odd_characters_works(tmp_path: Path, name: str) -> None:
    async with embedded.run(tmp_path / name, settings=QUICK) as server:
        assert await query(server.dsn, "select 1") == 1
        done = subprocess.run(
            [server.bin_dir / "psql", server.dsn, "-XAtc", "select 1"],
            capture_output=True,
            check=True,
            text=True,
        )
        assert done.stdout == "1\n"


async def test_folder_with_something_else_in_it_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match="not empty") as caught:
        async with embedded.run(tmp_path):
            pass
    assert str(tmp_path / "postgres") in caught.value.message
    assert caught.value.hint
    assert [path.name for path in (tmp_path / "postgres").iterdir()] == ["thesis.txt"]


async def test_cluster_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own" / "postgres").mkdir(parents=True)
    (tmp_path / "own" / "postgres" / "PG_VERSION").write_text("18\n")
    with pytest.raises(ConfigurationError, match="did not create"):
        async with embedded.run(tmp_path / "own"):
            pass
    with pytest.raises(ConfigurationError, match="is itself the cluster"):
        async with embedded.run(tmp_path / "own" / "postgres"):
            pass


async def test_empty_cluster_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir(mode=0o755)
    async with embedded.run(tmp_path, settings=QUICK) as server:
        assert await query(server.dsn, "select 1") == 1
    assert stat.S_IMODE((tmp_path / "postgres").stat().st_mode) == 0o700


async def test_a_machine_without_a_temporary_folder_will_do(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    async with embedded.run(short_path / "data", settings=QUICK) as server:
        assert await query(server.dsn, "select 1") == 1


async def test_what_needs_a_temporary_folder_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/no-such-folder"])
    with pytest.raises(ConfigurationError, match="temporary files") as caught:
        async with verify._server(None, None, in_embedded=True):
            pass
    assert "TMPDIR" in (caught.value.hint or "")


def test_whoever_makes_a_temporary_file_says_in_which_folder() -> None:
    for path in sorted(Path(coordinator.__file__).parent.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in MAKERS:
                assert "dir" in {word.arg for word in call.keywords}, f"{path}:{call.lineno}"


async def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/no-such-folder")):
        with pytest.raises(ConfigurationError) as caught:
            async with embedded.run(place):
                pass
        assert str(place) in caught.value.message
        assert caught.value.hint


@pytest.fixture
def small_disk(tmp_path: Path) -> tuple[str, ...]:
    """Return the start of a command line that runs the rest with a disk of 8 MB at tmp_path/disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=8m,mode=0700 tmpfs '{disk}' && exec \"$@\""
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mounts in user namespaces here")
    return prefix


def test_full_disk_is_named_as_such(tmp_path: Path, small_disk: tuple[str, ...]) -> None:
    with Daemon(tmp_path / "disk" / "data", prefix=small_disk) as daemon:
        answer = daemon.answer()
        assert answer["error"] == "DatabaseUnavailable"
        assert "no space is left" in answer["message"]
        assert str(tmp_path / "disk" / "data") in answer["message"]
        assert daemon.process.wait() == 7


@pytest.fixture
def without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a container in which root cannot create user namespaces."""
    candidates = account.candidates
    monkeypatch.setattr(
        account,
        "candidates",
        lambda path, *, new: [each for each in candidates(path, new=new) if each.name != "namespace"],
    )


@as_root
@pytest.mark.usefixtures("without_namespaces")
async def test_root_without_namespaces_runs_it_as_nobody_and_loosens_no_mode(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with embedded.run(data_dir, settings=QUICK) as server:
        assert await query(server.dsn, "select 1") == 1
        status = Path(f"/proc/{server.pid}/status").read_text()
        assert f"Uid:\t{launcher.NOBODY}\t{launcher.NOBODY}" in status
        for path in ("postgres", "postgres/base", "postgres/log/start.log"):
            assert (data_dir / path).stat().st_uid == launcher.NOBODY
        assert data_dir.stat().st_uid == 0
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


@as_root
async def test_cluster_moves_from_root_to_nobody_and_stays_there(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Daemon(own) as daemon:
        await query(daemon.answer()["dsn"], "create table kept as select 1 as it")
    original = account.candidates
    with monkeypatch.context() as patch:
        patch.setattr(account, "candidates", lambda path, *, new: original(path, new=new)[-1:])
        async with embedded.run(own, settings=QUICK) as server:
            assert await query(server.dsn, "select it from kept") == 1
    with Daemon(own) as daemon:
        answer = daemon.answer()
        assert await query(answer["dsn"], "select it from kept") == 1
        assert f"Uid:\t{launcher.NOBODY}" in Path(f"/proc/{answer['pid']}/status").read_text()
        daemon.kill()
        until(lambda: not daemon.server_pids, "the death signal survives the change of user")
    assert "received fast shutdown request" in cluster.log_tail(own / "postgres", {})


@as_root
async def test_root_runs_the_server_without_roots_powers(made: Path) -> None:
    async with embedded.run(made, settings=QUICK) as server:
        checked = []
        for pid in processes.servers_of(made / "postgres"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a worker or backend that has ended
                status = Path(f"/proc/{pid}/status").read_text()
                assert "CapEff:\t0000000000000000" in status
                checked.append(pid)
        assert server.pid in checked
        assert (made / "postgres").stat().st_uid == 0
        assert server.owned


@as_root
async def test_root_runs_a_users_cluster_as_that_user(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, 1, 1)
    async with embedded.run(data_dir, settings=QUICK) as server:
        assert "Uid:\t1\t" in Path(f"/proc/{server.pid}/status").read_text()
        for path in ("postgres", "postgres/coordinator.conf", "postgres/log/start.log", "postgres.lock"):
            assert (data_dir / path).stat().st_uid == 1, path


@as_root
async def test_folder_of_a_number_without_a_name_is_used_by_root_too(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, NAMELESS, NAMELESS)
    async with embedded.run(data_dir, settings=QUICK) as server:
        assert await query(server.dsn, "select 1") == 1


async def test_user_without_a_name_can_make_a_cluster(tmp_path: Path) -> None:
    prefix = ("unshare", "--user", f"--map-user={NAMELESS}", f"--map-group={NAMELESS}")
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    for _ in ("a new cluster", "an existing one"):
        with Daemon(tmp_path / "data", prefix=prefix) as daemon:
            answer = daemon.answer()
            assert "error" not in answer, answer
            assert await query(answer["dsn"], "select 1") == 1
            assert daemon.leave() == 0
