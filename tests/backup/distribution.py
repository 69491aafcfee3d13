"""Programs of the distribution: installed, or unpacked from its packages without installing them, so that nothing is started."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from coordinator.embedded import binaries

UNPACKED = Path(__file__).parents[2] / ".tools" / "pgbackrest"


def unpack(package: str) -> None:
    """Unpack a package of Debian, without installing it: nothing is started."""
    UNPACKED.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "-qq", "download", package], cwd=UNPACKED, check=True)
        (file,) = UNPACKED.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", file, UNPACKED], check=True)
        file.unlink()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.fail(f"{package} is missing (Debian: apt-get install {package}): {error}")


def postgres() -> Path:
    """Return the folder of the PostgreSQL of the distribution, which is older than the embedded one."""
    for folder in binaries.folders():
        if str(folder).startswith("/usr/lib/postgresql/"):
            return folder
    found = sorted(UNPACKED.glob("usr/lib/postgresql/*/bin"))
    if not found:
        listed = subprocess.run(["apt-cache", "depends", "postgresql"], capture_output=True, text=True, check=False)
        package = re.search(r"Depends: (postgresql-\d+)", listed.stdout)
        if package is None:
            pytest.fail("PostgreSQL is missing (Debian: apt-get install postgresql)")
        unpack(package[1])
        found = sorted(UNPACKED.glob("usr/lib/postgresql/*/bin"))
    return found[-1]


def pgbackrest() -> Path:
    """Return pgBackRest, which knows no PostgreSQL that is newer than the distribution's."""
    if installed := shutil.which("pgbackrest"):
        return Path(installed)
    path = UNPACKED / "usr" / "bin" / "pgbackrest"
    if not path.exists():
        unpack("pgbackrest")
    return path
