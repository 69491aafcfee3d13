"""Debian packages for `make operations`: installed without starting their services, or unpacked without installation."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

__all__ = ["install", "unpack"]

POLICY = Path("/usr/sbin/policy-rc.d")  # packages run it before they start a service


def install(packages: Mapping[str, str]) -> None:
    """Install the packages whose programs are missing, without recommended packages. No service is started."""
    missing = sorted({package for program, package in packages.items() if not shutil.which(program)})
    if not missing:
        return
    try:
        _update()
        with _no_services():
            command = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *missing]
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.fail(f"missing: apt-get install {' '.join(missing)}: {error}")


def unpack(package: str, folder: Path) -> None:
    """Unpack a package into a folder, without installing it or its dependencies."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if os.geteuid() == 0:
            _update()
        subprocess.run(["apt-get", "-qq", "download", package], cwd=folder, check=True)
        (file,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", file, folder], check=True)
        file.unlink()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.fail(f"missing: apt-get install {package}: {error}")


@cache
def _update() -> None:
    subprocess.run(["apt-get", "-qq", "update"], check=True)


@contextmanager
def _no_services() -> Iterator[None]:
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", "utf-8")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
