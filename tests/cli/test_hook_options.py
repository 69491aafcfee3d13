"""The options of ``hook run``, read without the machinery of commands: as this reads them, or not at all."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest

from coordinator.cli import hook_options, hook_run
from coordinator.cli.commands import hook
from coordinator.cli.invocation import Invocation
from tests.forked import ROOT

UNDERSTOOD = [
    [],
    ["--wait", "1m", "--limit=2s", "--ttl", "7"],
    ["--hold", "until-commit", "--shared-reads", "--unreachable=deny"],
    ["--worktrees", "shared", "--dialect", "codex", "--dialect", "gemini"],
    ["--url", "http://127.0.0.1:1", "--project", "shop"],
]
LEFT = [
    ["--help"],
    ["--wait"],
    ["--wait", "soon"],
    ["--wait", "1e400d"],
    ["--hold", "forever"],
    ["--hold="],
    ["--dialect", "--wait"],
    ["--dialect="],
    ["--shared-reads=true"],
    ["--profile", "prod"],
    ["-p", "shop"],
    ["--", "x"],
    ["x"],
    ["wait", "1m"],
]


def by_click(arguments: list[str]) -> dict[str, Any]:
    invocation = Invocation()
    parameters = hook.run.make_context("coordinator hook run", [*arguments], obj=invocation).params
    flags = {name: invocation.flags.get(setting, ("", None))[1] for name, setting in hook_run.FLAGS.items()}
    return {**parameters, **flags}


@pytest.mark.parametrize("arguments", UNDERSTOOD, ids=" ".join)
def test_what_is_understood_means_what_the_command_understands(arguments: list[str]) -> None:
    assert hook_options.read(arguments) == by_click(arguments)


@pytest.mark.parametrize("arguments", LEFT, ids=" ".join)
def test_anything_else_is_left_to_the_command(arguments: list[str]) -> None:
    assert hook_options.read(arguments) is None


def test_every_option_of_the_command_is_understood() -> None:
    options = {option.name for option in hook.run.params if isinstance(option, click.Option) and option.expose_value}
    assert options == hook_options.read([]).keys() - hook_run.FLAGS.keys()  # type: ignore[union-attr]


def test_an_answer_imports_neither_the_commands_nor_what_they_need() -> None:
    code = (
        "import os, sys; import coordinator.__main__ as program\n"
        "end = os._exit; os._exit = lambda code: (print(*sys.modules), sys.stdout.flush(), end(code))\n"
        "sys.argv = ['coordinator', 'hook', 'run', '--limit', '1m']; program.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input="{}", capture_output=True, text=True, check=False, cwd=ROOT
    )
    loaded = set(done.stdout.split())
    assert "coordinator.cli.hook_run" in loaded, done.stderr
    assert loaded.isdisjoint({"click", "coordinator.cli.command", "coordinator.cli.invocation", "asyncpg", "pkgutil"})
