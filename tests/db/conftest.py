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
def _model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    async def make(data_dir: Path) -> None:
        async with embedded.run(data_dir, settings=QUICK):
            pass

    data_dir = tmp_path_factory.mktemp("embedded") / "model"
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
def made(tmp_path: Path, _model: Path) -> Path:
    """Give a data directory whose cluster is made and stopped, a copy: cheaper than a new one."""
    data_dir = tmp_path / "data"
    subprocess.run(["cp", "-a", _model, data_dir], check=True)
    return data_dir
