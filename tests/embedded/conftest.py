"""Fixtures for the tests of the embedded PostgreSQL."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
import pytest

from coordinator import embedded
from tests.embedded.process import QUICK


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data directory with a cluster, shared by tests that leave it usable."""

    async def make(data_dir: Path) -> None:
        async with embedded.run(data_dir, settings=QUICK):
            pass

    data_dir = tmp_path_factory.mktemp("embedded") / "data"
    anyio.run(make, data_dir)
    return data_dir


@pytest.fixture
def own(tmp_path: Path, made: Path) -> Path:
    """Return a copy of `made` that the test can damage."""
    data_dir = tmp_path / "data"
    subprocess.run(["cp", "-a", made, data_dir], check=True)
    return data_dir
