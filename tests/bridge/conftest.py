"""``agent-bridge`` as a process, on PostgreSQL and through a daemon that wants a token."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from coordinator.db.call import call
from coordinator.errors import NotFound
from coordinator.model.operation import Operation
from coordinator.model.token import new_secret
from coordinator.operations import documents, signals, tokens
from tests.cli.conftest import Program
from tests.conftest import cloned
from tests.daemon import Daemon, opened
from tests.waiting import DEADLINE_S

R = TypeVar("R")

INTERFACES = ("database", "daemon")


class Agent(Program):
    """An agent that calls ``agent-bridge`` in a project of its own."""

    module = "coordinator.bridge"
    constants = MappingProxyType({"coordinator.db.connection.LOCK_WAIT_S": DEADLINE_S})

    def __init__(self, folder: Path, database_url: str, project: str, **environment: str) -> None:
        self.database_url = database_url
        self.project = project
        super().__init__(
            folder,
            {
                "RECAC_DB_TYPE": "postgres",
                "RECAC_DB_URL": database_url,
                "RECAC_PROJECT_ID": project,
                "COORDINATOR_CALL_TIMEOUT_S": f"{DEADLINE_S:g}",
                **environment,
            },
        )

    def says(self, *arguments: str, stdin: bytes = b"", **environment: str) -> str:
        """Run what must succeed, and return what it printed."""
        done = self.run(*arguments, stdin=stdin, **environment)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def refuses(self, *arguments: str | bytes, stdin: bytes = b"", **environment: str) -> str:
        """Run what must fail, and return the line that says why."""
        done = self.run(*arguments, stdin=stdin, **environment)
        assert done.returncode == 1, done
        return self.line(done)

    def line(self, done: subprocess.CompletedProcess[str]) -> str:
        (line,) = done.stderr.splitlines()
        assert line.startswith("Error: ")
        assert line.isprintable()
        assert "this is a bug" not in line
        return line.removeprefix("Error: ")

    def ask(self, operation: Operation[R]) -> R:
        """Run an operation on the database itself."""

        async def once() -> R:
            async with opened(self.database_url) as connection:
                return await call(connection, operation)

        return asyncio.run(once())

    def signal(self, key: str, project: str | None = None) -> Any:
        """Return the value of a signal; None: it is not set."""
        try:
            return self.ask(signals.Get(project=project or self.project, key=key)).value
        except NotFound:
            return None

    def features(self) -> str:
        return bytes(self.ask(documents.Get(project=self.project, kind="features", key="main")).text).decode()


class Plane:
    """A database, and a daemon on it."""

    def __init__(self, database_url: str, daemon: Daemon) -> None:
        self.database_url = database_url
        self.daemon = daemon

    def token(self, role: str, project: str | None = None) -> str:
        secret = new_secret()
        create = tokens.Create(
            name=f"t-{uuid4().hex[:8]}", role=role, hash=secret.hash, prefix=secret.prefix, project=project
        )

        async def once() -> None:
            async with opened(self.database_url) as connection:
                await call(connection, create)

        asyncio.run(once())
        return secret.text


@pytest.fixture(scope="session")
def plane(server_url: str, template: str) -> Iterator[Plane]:
    """What all these tests share; each has a project of its own."""
    with asyncio.Runner() as runner:
        database = cloned(server_url, template)
        url = runner.run(database.__aenter__())
        try:
            with Daemon(url, access="tokens") as daemon:
                runner.run(daemon.ready())
                yield Plane(url, daemon)
        finally:
            runner.run(database.__aexit__(None, None, None))


@pytest.fixture
def agent(tmp_path: Path, plane: Plane) -> Agent:
    """An agent on PostgreSQL."""
    return Agent(tmp_path, plane.database_url, f"p-{uuid4().hex[:12]}")


@pytest.fixture(params=INTERFACES)
def anywhere(request: pytest.FixtureRequest, agent: Agent, plane: Plane) -> Agent:
    """The same agent through each interface."""
    if request.param == "daemon":
        agent.environment |= {"RECAC_DB_URL": plane.daemon.url, "COORDINATOR_TOKEN": plane.token("admin")}
    return agent
