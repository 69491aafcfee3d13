"""What the image installs: the versions that tests ran with, with hashes, and everything that the program needs."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.rendered import ROOT

PINS = sorted((ROOT / "deploy" / "image").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PYTHON = {
    "python_version": "3.13",
    "python_full_version": "3.13.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
}


def pinned(path: Path) -> dict[str, str]:
    """Return the versions in a file whose every line has a hash."""
    entries = re.sub(r"\\\n", " ", path.read_text("utf-8")).splitlines()
    found = {}
    for entry in entries:
        requirement, *hashes = entry.split(" --hash=")
        assert hashes, entry
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each.strip()) for each in hashes), entry
        name, version = requirement.strip().split("==")
        found[name] = version.strip()
    return found


CONSTRAINTS = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()[1:]
    )
}


def needed(*requirements: str) -> set[str]:
    """Return the names of all packages that requirements lead to, on the Python of the image."""
    found: set[str] = set()
    waiting = [(Requirement(each), "") for each in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate(PYTHON | {"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name in found and not requirement.extras:
            continue
        found.add(name)
        for each in distribution(name).requires or []:
            waiting += [(Requirement(each), one) for one in ("", *requirement.extras)]
    return found


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.name)
def test_versions_are_those_of_the_constraints(path: Path) -> None:
    versions = pinned(path)
    assert versions == {name: CONSTRAINTS.get(name) for name in versions}, 'run "make pins"'


def test_the_image_has_what_the_program_needs_and_no_more() -> None:
    assert pinned(ROOT / "deploy/image/run.txt").keys() == needed(*PROJECT["dependencies"]), 'run "make pins"'


EXTRAS = sorted(PROJECT["optional-dependencies"].keys() - {"dev", "docs"})  # that users install


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_has_what_it_adds(extra: str) -> None:
    base = PROJECT["dependencies"]
    added = needed(*base, *PROJECT["optional-dependencies"][extra]) - needed(*base)
    assert pinned(ROOT / f"deploy/image/{extra}.txt").keys() == added, 'run "make pins"'


def test_every_extra_can_be_built_into_the_image() -> None:
    assert {path.stem for path in PINS} == {*EXTRAS, "run", "build"}
