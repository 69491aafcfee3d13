"""The Dockerfile says what the program understands. `make operations` builds and runs the image."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from coordinator.config import PREFIX, Config
from tests.deploy.dockerfile import instructions
from tests.deploy.rendered import ROOT
from tests.deploy.understood import USER, read, understood


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_is_one_that_the_program_understands() -> None:
    (command,) = (yaml.safe_load(line) for line in instructions("CMD"))
    understood(list(command))


def test_every_variable_is_one_that_the_program_reads() -> None:
    named = {word.partition("=")[0] for line in instructions("ENV") for word in shlex.split(line)}
    assert {"COORDINATOR_DATA_DIR"} <= {name for name in named if name.startswith(PREFIX)} <= read()


def test_the_entry_point_is_the_installed_program() -> None:
    (entry,) = (yaml.safe_load(line) for line in instructions("ENTRYPOINT"))
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    module, _, function = scripts[entry[0]].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_image_gets_the_files_that_it_is_built_of_and_no_others() -> None:
    copied = {word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]}
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert lines[1] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


def test_user_and_port_are_those_of_the_manifests() -> None:
    assert instructions("USER") == [f"{USER}:{USER}"]
    assert [int(port) for port in instructions("EXPOSE")] == [Config().port]
