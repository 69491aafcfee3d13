"""Programs of the distribution, whose PostgreSQL is older than the embedded one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coordinator.embedded import binaries
from tests.debian import install


def postgres() -> Path:
    """Return the folder of the PostgreSQL of the distribution."""
    install({"pg_ctlcluster": "postgresql"})
    for folder in binaries.folders():
        if str(folder).startswith("/usr/lib/postgresql/"):
            return folder
    pytest.fail("PostgreSQL is missing (Debian: apt-get install postgresql)")


def pgbackrest() -> Path:
    """Return pgBackRest, which knows no PostgreSQL that is newer than the distribution's."""
    install({"pgbackrest": "pgbackrest"})
    found = shutil.which("pgbackrest")
    assert found
    return Path(found)
