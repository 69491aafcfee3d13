"""Fixtures of the tests about the embedded PostgreSQL."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from coordinator.db import embedded
from tests.db.embedded_daemon import QUICK


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a data directory whose cluster is made; shared by tests that leave it as good as they found it."""

    async def make(data_dir: Path) -> None:
        async with embedded.run(data_dir, settings=QUICK):
            pass

    data_dir = tmp_path_factory.mktemp("embedded") / "data"
    anyio.run(make, data_dir)
    yield data_dir
    shutil.rmtree(data_dir)


@pytest.fixture(autouse=True)
def _tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove a test's clusters: at 40 MB each, pytest's three kept sessions would fill a disk."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own(tmp_path: Path, made: Path) -> Path:
    """Give a copy of `made` that the test may change for good."""
    data_dir = tmp_path / "data"
    subprocess.run(["cp", "-a", made, data_dir], check=True)
    return data_dir
