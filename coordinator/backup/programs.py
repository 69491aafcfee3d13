"""pg_dump and pg_restore: which ones are used, and how they run.

A newer pg_dump can read an older server, but dumps of pg_dump 17 or newer need a server of version 17 or newer. So the
programs with the server's own major version are preferred, then the next newer ones. They receive the password in their
environment, since everybody can see their arguments.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path

import anyio
import msgspec
from anyio.abc import Process

from coordinator.embedded import binaries, processes
from coordinator.embedded.releases import number
from coordinator.errors import BackupFailed, ConfigurationError, CoordinatorError, DatabaseBusy, DatabaseUnavailable
from coordinator.model.address import credentials_apart

__all__ = ["NEEDS_17", "Programs", "Work", "choose", "run"]

Work = Callable[[], Coroutine[None, None, None]]

VERSION_TIMEOUT_S = 10.0
TERMINATE_S = 10.0
NEEDS_17 = 17  # from this version on, the programs use settings that older servers do not know
_LAST_LINES = 20
_NAMES = ("pg_dump", "pg_restore")
_LOCKED = re.compile("could not obtain lock|canceling statement due to lock timeout|deadlock detected")
_FULL = re.compile("No space left on device|Disk quota exceeded|could not extend file")
_LOST = re.compile(
    "server closed the connection|connection to server .* failed|terminating connection|could not receive data from server"
)


class Programs(msgspec.Struct, frozen=True):
    """A folder with pg_dump and pg_restore, and their version ("18.6")."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        """The major version."""
        return number(self.version)[0]


async def choose(bin_dir: Path | None, least: int, *, what: str) -> Programs:
    """Return the oldest pg_dump and pg_restore that have at least this major version: in ``bin_dir``, or anywhere on this machine.

    ``what`` has that version: "the server".

    Raises: ``ConfigurationError`` that says what to install.
    """
    found: list[Programs] = []
    for folder in _folders(bin_dir):
        version = await _version(folder)
        if version:
            found.append(Programs(folder, version))
    fitting = [each for each in found if each.major >= least]
    if fitting:
        return min(fitting, key=lambda each: (each.major, -number(each.version)[1]))
    where = f"in {bin_dir}" if bin_dir else "on this machine"
    there = ", ".join(f"{each.version} in {each.folder}" for each in found)
    raise ConfigurationError(
        f"there is no pg_dump and pg_restore {least} or newer {where}, which is the version of {what}"
        + (f"; found {there}" if there else ""),
        hint=f"Install them (Debian, Ubuntu: apt-get install postgresql-client-{least}; or pip install 'coordinatord[embedded]'), "
        "or set COORDINATOR_PG_BIN_DIR to their directory.",
    )


def _folders(bin_dir: Path | None) -> Iterable[Path]:
    return [bin_dir.absolute()] if bin_dir else binaries.folders(*_NAMES)  # absolute, since programs run in "/"


async def _version(folder: Path) -> str | None:
    try:
        code, text = await processes.run([str(folder / "pg_dump"), "--version"], timeout_s=VERSION_TIMEOUT_S)
    except OSError:
        return None
    match = re.search(r"\(PostgreSQL\) (\d\S*)", text)
    return match[1] if code == 0 and match and (folder / "pg_restore").exists() else None


def _connection(dsn: str) -> tuple[str, dict[str, str]]:
    """Split an address into one without its password, and the environment that has it.

    Raises: ``ConfigurationError`` for the password of a key, which could only be given where everybody sees it.
    """
    address, secrets = credentials_apart(dsn)
    if "sslpassword" in secrets:
        raise ConfigurationError(
            "the address has an sslpassword, which the arguments of pg_dump would show to everybody",
            hint="Give a key without a password, in a file that only this user can read.",
        )
    environment = {"PGPASSWORD": secrets["password"]} if "password" in secrets else {}
    return re.sub(r"([?&])database=", r"\1dbname=", address), environment


async def run(
    program: Path,
    dsn: str,
    arguments: Iterable[str | Path],
    *,
    report: Callable[[str], None] = lambda _: None,
    keep_open: Iterable[int] = (),
) -> None:
    """Run one of the programs on a database, and give each table whose data is done to ``report``.

    If the caller is cancelled, the program and its workers end first. They keep the descriptors ``keep_open`` open, as long as one of them
    runs.

    Raises: ``DatabaseBusy`` if another session asked for an exclusive lock of a table; ``BackupFailed`` with the last lines.
    """
    address, secrets = _connection(dsn)
    environment = {name: value for name, value in os.environ.items() if name != "PGOPTIONS"}
    process = await anyio.open_process(
        [str(program), f"--dbname={address}", "--no-password", "--verbose", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**environment, **secrets, "LC_ALL": "C", "PGAPPNAME": "coordinator backup"},
        start_new_session=True,  # so that Ctrl-C reaches only this process
        pass_fds=list(keep_open),
        umask=0o077,
    )
    try:
        last = await _read(process, report)
        code = await process.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
    if code != 0:
        raise _failure(program.name, code, last)


async def _read(process: Process, report: Callable[[str], None]) -> list[str]:
    """Read the output of the program until it ends; return the last lines that are not about progress."""
    assert process.stderr is not None  # noqa: S101 - for mypy
    last: deque[str] = deque(maxlen=_LAST_LINES)
    rest = b""
    async for chunk in process.stderr:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in (raw.decode("utf-8", "replace") for raw in lines):
            if done := re.search(r"finished item \d+ TABLE DATA (.+)$", line):
                report(done[1])
            elif re.search("error:|warning:|detail:|hint:|ERROR|FATAL|DETAIL|HINT", line):
                last.append(line)
    return list(last)


async def _end(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        with anyio.move_on_after(TERMINATE_S):
            await process.wait()
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    await process.aclose()


def _failure(name: str, code: int, last: list[str]) -> CoordinatorError:
    text = "\n".join(last)
    if _LOST.search(text):
        return DatabaseUnavailable(f"{name} lost the database", hint="Try again when the server answers.", detail=text)
    if _FULL.search(text) and name == "pg_restore":
        return DatabaseUnavailable(
            "no space is left on the server's disk", hint="Free some space there.", detail=text, code="53100"
        )
    if _FULL.search(text):
        return BackupFailed(
            "no space is left on the disk", hint="Free some space, or choose another directory.", detail=text
        )
    if _LOCKED.search(text):
        return DatabaseBusy(
            f"{name} could not lock a table that another session changes",
            hint="Try again when the change of the schema, or VACUUM FULL, is over.",
            detail=text,
        )
    reason = next((line.partition("error:")[2].strip() for line in last if "error:" in line), f"exit code {code}")
    return BackupFailed(f"{name} failed: {reason}", hint="The detail has its last lines.", detail=text or None)
