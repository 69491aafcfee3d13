"""What ``import coordinator`` offers: every public name, and a connection without an address."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import coordinator
from coordinator import client, errors, model
from coordinator.client.agents import Agents
from coordinator.client.directives import Directives
from coordinator.client.events import Events
from coordinator.client.locks import Locks
from coordinator.client.logs import Logs
from coordinator.client.projects import Projects
from coordinator.client.rules import Rules
from coordinator.client.signals import Signals
from coordinator.errors import DatabaseUnavailable


def test_every_public_name_can_be_imported_and_is_listed() -> None:
    assert set(coordinator.__all__) <= set(dir(coordinator))
    for name in coordinator.__all__:
        assert getattr(coordinator, name) is not None
    assert {"__version__", *client.__all__} <= set(coordinator.__all__)
    assert set(coordinator.__all__) == {"__version__", *coordinator._PLACE_OF}  # type: ignore[attr-defined]
    assert {name for name in errors.__all__ if name[0].isupper() and not name.isupper()} <= set(coordinator.__all__)
    assert coordinator.LockLost is client.LockLost
    with pytest.raises(AttributeError, match="no attribute 'lock_lost'"):
        _ = coordinator.lock_lost  # type: ignore[attr-defined]


def test_type_checkers_know_the_same_names() -> None:
    tree = ast.parse(Path(coordinator.__file__).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    names = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {*names, "__version__"} == set(coordinator.__all__)


def test_what_the_methods_return_is_public() -> None:
    """A caller can annotate every result."""
    modules = [import_module(f"coordinator.model.{found.name}") for found in pkgutil.iter_modules(model.__path__)]
    classes = (kind for module in modules for kind in vars(module).values() if isinstance(kind, type))
    rows = {kind.__name__ for kind in classes if kind.__module__.startswith(model.__name__)}
    nouns = (Agents, Directives, Events, Locks, Logs, Projects, Rules, Signals, coordinator.Client)
    methods = [method for noun in nouns for name, method in vars(noun).items() if name[0] != "_" and callable(method)]
    returned = {word for method in methods for word in re.findall(r"\w+", method.__annotations__["return"])}
    assert {"Signal", "Lock", "Directive", "Status"} <= returned & rows <= set(coordinator.__all__)


async def test_a_connection_without_an_address_is_that_of_the_command_line(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COORDINATOR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(DatabaseUnavailable, match="no embedded server runs") as failure:
        async with coordinator.connect():
            pass
    assert "coordinator serve" in (failure.value.hint or "")
    monkeypatch.setenv("COORDINATOR_DATABASE_URL", database_url)
    async with coordinator.connect() as one:
        await one.projects.create("shop")
        assert one.project == "default"
    monkeypatch.setenv("COORDINATOR_PROJECT", "shop")
    async with coordinator.connect() as two, coordinator.connect(database_url) as three:
        assert (two.project, three.project) == ("shop", "default")
        await two.signals.set("k", 1)


def test_importing_the_package_imports_nothing_slow() -> None:
    code = "import coordinator, sys; coordinator.__all__; dir(coordinator); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"asyncpg", "anyio", "msgspec", "structlog"} & set(loaded)
