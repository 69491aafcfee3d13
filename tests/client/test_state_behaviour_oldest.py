"""Agent state behaves on the oldest PostgreSQL of this machine from 15 on (a wheel brings 16) as it does on that of the suite."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.embedded import binaries
from coordinator.embedded.releases import OLDEST_MAJOR, number
from tests.client.conftest import daemon_on
from tests.client.test_state_behaviour import *  # noqa: F403 - the same tests
from tests.conftest import local_server, with_clock, with_schema
from tests.daemon import Daemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[tuple[Daemon, str]]:
    """A daemon and its database, on that server."""
    fitting = [folder for folder in binaries.folders() if release_of(folder) >= OLDEST_MAJOR]
    with (
        local_server(min(fitting, key=release_of)) as server,
        daemon_on(server, with_clock(server, with_schema(server))) as running,
    ):
        yield running


def release_of(folder: Path) -> int:
    """Return the major version of the programs in a folder."""
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, check=True, text=True).stdout
    return number(said.split()[2])[0]
