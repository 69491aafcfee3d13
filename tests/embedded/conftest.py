"""Fixtures of the tests about the embedded PostgreSQL."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
import pytest

from coordinator import embedded
from tests.embedded.process import QUICK


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a data directory whose cluster is made; shared by tests that leave it as good as they found it."""

    async def make(data_dir: Path) -> None:
        async with embedded.run(data_dir, settings=QUICK):
            pass

    data_dir = tmp_path_factory.mktemp("embedded") / "data"
    anyio.run(make, data_dir)
    return data_dir


@pytest.fixture
def own(tmp_path: Path, made: Path) -> Path:
    """Give a copy of `made` that the test may change for good."""
    data_dir = tmp_path / "data"
    subprocess.run(["cp", "-a", made, data_dir], check=True)
    return data_dir
