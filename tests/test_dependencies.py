"""Every package that the product, its extras and its suite need is pinned, at the version with which this suite runs."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(requirements: list[str]) -> dict[str, str]:
    """Return the versions of the installed packages that fulfil requirements, and of those that these need."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        for extra in {"", *requirement.extras} - {extra for name, extra in seen if name == requirement.name}:
            seen.add((requirement.name, extra))
            try:
                installed = distribution(requirement.name)
            except PackageNotFoundError:
                continue  # for another system, or of an extra that is not installed here
            found[normal(requirement.name)] = installed.version
            wanted = map(Requirement, installed.requires or [])
            waiting += [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": extra})]
    return found


def test_constraints_pin_every_package_that_is_needed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE))
    pinned = {normal(name): version for name, version in pins.items()}
    found = needed([*project["dependencies"], *(line for extra in extras for line in extra)])
    assert len(found) > 50
    assert {name: version for name, version in found.items() if pinned.get(name) != version} == {}
