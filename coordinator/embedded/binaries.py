"""Which PostgreSQL runs: that of a carrier, else that of the system, else the one in PATH.

An existing cluster needs programs of its own major version. If one place has several, the newest minor release is used.
A folder must contain ``postgres`` and ``initdb``, and ``postgres --version`` must run as the server's account.
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
from coordinator.embedded.releases import CARRIERS, OLDEST_MAJOR, number
from coordinator.errors import ConfigurationError

__all__ = ["AccountRefused", "Binaries", "choose", "folders"]

SERVER = ("postgres", "initdb")
SYSTEM_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
VERSION_TIMEOUT_S = 10.0
_INSTALL_HINT = (
    "Install the embedded one (pip install 'coordinatord[embedded]') or the system's PostgreSQL "
    f"{OLDEST_MAJOR} or newer (Debian, Ubuntu: apt install postgresql), or configure the URL of a database."
)


class AccountRefused(Exception):
    """The operating system does not let this process run programs as the account."""


class Binaries(msgspec.Struct, frozen=True):
    """A folder with PostgreSQL's programs, and their version ("18.6")."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        """The major version, which must be that of the cluster."""
        return number(self.version)[0]


async def choose(account: Account, *, home: Path, bin_dir: Path | None, major: int | None) -> Binaries:
    """Return the programs in ``bin_dir``, or the best ones on this machine; only of the major version ``major``, if it is given.

    Raises: ``ConfigurationError`` that says what to install; ``AccountRefused`` if the account cannot run programs
    here, or cannot enter the folder ``home``.
    """
    others: list[Binaries] = []
    broken: list[str] = []
    for place in [[bin_dir]] if bin_dir else _places():
        fitting: list[Binaries] = []
        for folder in place:
            found = await _examine(folder, account, home)
            if isinstance(found, str):
                broken.append(found)
                continue
            fits = found.major == major or (major is None and found.major >= OLDEST_MAJOR)
            (fitting if fits else others).append(found)
        if fitting:
            return max(fitting, key=lambda each: number(each.version))
    if major is not None and others:
        raise ConfigurationError(
            f"PostgreSQL {major} created the cluster, and this machine has no PostgreSQL {major}",
            hint=f"Found: {', '.join(f'{each.version} in {each.folder}' for each in others)}. "
            f"Install PostgreSQL {major}; or move the cluster to another version with pg_upgrade, or with "
            "pg_dump and a restore; or start with an empty --data-dir.",
        )
    where = f"in {bin_dir}" if bin_dir else "on this machine"
    if major is not None:
        raise ConfigurationError(
            f"PostgreSQL {major} created the cluster, and there is no usable PostgreSQL {where}",
            hint=f"Install PostgreSQL {major}; pip install 'coordinatord[embedded]' installs 18.",
            detail="; ".join(broken) or None,
        )
    raise ConfigurationError(
        f"no database is configured, and there is no usable PostgreSQL {where}",
        hint=_INSTALL_HINT,
        detail="; ".join([*broken, *(f"{each.folder}: {each.version} is too old" for each in others)]) or None,
    )


def folders(*programs: str) -> Iterator[Path]:
    """Yield each folder that has these programs, by default those of a server, best place first."""
    return (folder for place in _places(programs or SERVER) for folder in place)


def _places(programs: tuple[str, ...] = SERVER) -> Iterator[list[Path]]:
    seen: set[Path] = set()
    for found in (_carried(), _system(), _path(programs[0])):
        place = [folder for folder in dict.fromkeys(found) if folder not in seen and _has_programs(folder, programs)]
        seen.update(place)
        yield place


def _carried() -> Iterator[Path]:
    for name in CARRIERS:
        spec = importlib.util.find_spec(name)
        for root in (spec and spec.submodule_search_locations) or ():
            yield from sorted(Path(root).glob("pginstall*/bin"), reverse=True)


def _system() -> Iterator[Path]:
    for pattern in SYSTEM_FOLDERS:
        yield from sorted(Path("/").glob(pattern[1:]), reverse=True)


def _path(name: str) -> Iterator[Path]:
    for entry in os.get_exec_path():
        program = Path(entry) / name
        if entry and program.exists():
            real = program.resolve()
            # Debian's wrapper looks at the name it was called by.
            yield real.parent if real.name == name else program.parent


def _has_programs(folder: Path, programs: tuple[str, ...] = SERVER) -> bool:
    return all((folder / name).is_file() and os.access(folder / name, os.X_OK) for name in programs)


async def _examine(folder: Path, account: Account, home: Path) -> Binaries | str:
    """Return the programs in a folder, or what is wrong with them."""
    if not _has_programs(folder):
        return f"{folder}: postgres and initdb are not both there"
    program = folder / "postgres"
    plain = [str(program), "--version"]
    command = plain if account.name == "self" else account.command(program, "--version", folder=home)
    code, text = await processes.run(command, timeout_s=VERSION_TIMEOUT_S)
    text = text.strip()
    if code == launcher.REFUSED:
        raise AccountRefused(text)
    match = re.search(r"\(PostgreSQL\) (\d\S*)", text)
    return Binaries(folder, match[1]) if code == 0 and match else f"{folder}: {text or code}"
