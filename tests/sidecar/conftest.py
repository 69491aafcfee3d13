"""Sidecars as real processes, each with a database of its own."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import pytest

from tests.forked import Forked
from tests.http_client import http_client
from tests.waiting import until


class Sidecar:
    """One sidecar process."""

    def __init__(
        self, url: str, *arguments: str, constants: Mapping[str, float] | None = None, **environment: str
    ) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the block
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COORDINATOR_", "POD_"))}
        given = ["sidecar", "--url", url, "--log-format", "json", *arguments]
        if "--listen" not in arguments:
            given += ["--listen", "127.0.0.1:0"]
        self.process = Forked(
            "coordinator",
            *given,
            stderr=self._output,
            env=kept | {"PYTHONWARNINGS": "error", "COORDINATOR_SLOW_CALL_S": "3600"} | environment,
            constants=constants,
        )
        weakref.finalize(self, self.process.kill)

    def output(self) -> str:
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode()

    def lines(self, event: str) -> list[dict[str, Any]]:
        whole = self.output().rpartition("\n")[0].splitlines()
        return [line for line in map(json.loads, whole) if line["event"] == event]

    async def started(self) -> Self:
        async def look() -> bool:
            assert self.process.poll() is None, self.output()
            return bool(self.lines("sidecar.started"))

        await until(look, "the sidecar has started", every_s=0.05)
        return self

    @property
    def url(self) -> str:
        return str(self.lines("sidecar.started")[0]["http"][0])

    @property
    def agent(self) -> UUID:
        return UUID(self.lines("sidecar.started")[0]["agent"])

    async def report(self) -> dict[str, Any]:
        async with http_client() as client:
            answer = await client.get(self.url + "/v1/sidecar")
        assert answer.status_code == 200
        return dict(answer.json())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._output.close()

    async def ended(self) -> int:
        await until(lambda: self.process.poll() is not None, "the sidecar has ended")
        return self.process.returncode


@contextmanager
def sidecar(
    url: str, *arguments: str, constants: Mapping[str, float] | None = None, **environment: str
) -> Iterator[Sidecar]:
    """A sidecar that is killed when the block ends, unless it ended before."""
    running = Sidecar(url, *arguments, constants=constants, **environment)
    try:
        yield running
    except BaseException:
        sys.stderr.write(running.output())
        raise
    finally:
        running.close()


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Labels as the downward API writes them."""
    path = tmp_path / "labels"
    path.write_text('app="shop"\ntier="back\\"end"\nnot a label\n')
    return path
