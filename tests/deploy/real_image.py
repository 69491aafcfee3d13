"""The Dockerfile is built and its image run: part of ``make operations``.

No registry is asked. The base is a Debian made here, whose Python has the version of the base that the Dockerfile names, and pip gets the
packages from a folder, with their hashes. It takes root: to make a base, to mount, and to end up as nobody.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.debian import install
from tests.deploy.dockerfile import instructions
from tests.deploy.rendered import ROOT
from tests.deploy.test_pins import PINS, pinned
from tests.deploy.understood import USER
from tests.http_client import http_client
from tests.ports import reserve_port
from tests.waiting import until

FOLDER = ROOT / ".tools" / "image"
DEBIAN = "trixie"  # has Python 3.13
PACKAGES = ["debootstrap", "buildah", "crun"]
LIMIT_BYTES = 60_000_000
PORT = reserve_port()

# As a container: PID 1 of its own, a root that cannot be written, no capabilities, and no way to get any.
CONTAINER = """
mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev"
mount -t tmpfs -o "mode=0700,uid=$1,gid=$1" tmpfs "$0/var/lib/coordinator"
mount -o remount,bind,ro "$0"
root=$0; user=$1; shift
exec chroot "$root" setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
  env --ignore-environment HOME=/ "$@"
"""


def run(*command: str | Path, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def base() -> Path:
    """Return a folder with a Debian that has Python, pip and strip."""
    if os.geteuid() != 0:
        pytest.fail("run make operations as root: it makes a base and mounts what it has built")
    install({package: package for package in PACKAGES})
    folder = FOLDER / DEBIAN
    if not (folder / "usr" / "bin" / "python").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        include = "--include=python3,python3-venv,python3-pip,binutils"
        run("debootstrap", "--variant=minbase", include, DEBIAN, folder, *mirror())
        (folder / "usr" / "bin" / "python").symlink_to("python3")
    return folder


def mirror() -> list[str]:
    """Return the address of the mirror that this machine has its packages from, if it has one."""
    for line in run("apt-get", "indextargets", "--format", "$(SITE)").splitlines():
        if line.rstrip("/").endswith("/debian"):
            return [line]
    return []


@pytest.fixture(scope="session")
def wheels() -> Path:
    """Return a folder with all wheels that the image is built of, for its version of Python and not for ours."""
    folder = FOLDER / "wheels"
    glibc = ["2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5"]
    names = [f"manylinux_{one}" for one in glibc] + ["manylinux2014", "manylinux2010", "manylinux1"]
    platforms = [f"--platform={name}_{platform.machine()}" for name in names]
    for file in PINS:
        options = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version=3.13", *platforms]
        run(sys.executable, "-m", "pip", "download", "-q", "-d", folder, *options, "-r", file, cwd=ROOT)
    return folder


Builder = Callable[..., str]


@pytest.fixture(scope="module")
def buildah(base: Path) -> Iterator[Builder]:
    """Run buildah on a store of its own, which has the base under the names that the Dockerfile gives it."""
    store = FOLDER / "store"
    shutil.rmtree(store, ignore_errors=True)

    def buildah(*arguments: str | Path) -> str:
        options = ["--root", store / "root", "--runroot", store / "run", "--storage-driver", "vfs"]
        return run("buildah", *options, *arguments).strip()

    container = buildah("from", "scratch")
    buildah("copy", "-q", container, base, "/")
    for line in instructions("FROM"):
        buildah("commit", "-q", container, f"docker.io/library/{line.split()[0]}")
    buildah("rm", container)
    try:
        yield buildah
    finally:
        buildah("umount", "--all")
        shutil.rmtree(store)


@contextmanager
def built(buildah: Builder, wheels: Path, extras: str) -> Iterator[tuple[str, Path]]:
    """Build the image; give its id, and the folder where it is mounted."""
    configuration = FOLDER / "pip.conf"
    configuration.write_text("[global]\nno-index = true\nfind-links = /wheels\n", "utf-8")
    mounts = [f"--volume={wheels}:/wheels:ro", f"--volume={configuration}:/etc/pip.conf:ro"]
    options = ["--pull-never", "--isolation=chroot", "--format=docker", f"--build-arg=EXTRAS={extras}", *mounts]
    image = buildah("build", "-q", *options, ROOT).splitlines()[-1]
    container = buildah("from", "--pull-never", image)
    try:
        yield image, Path(buildah("mount", container))
    finally:
        buildah("rm", container)
        buildah("rmi", image)


def test_an_image_without_the_embedded_server_is_small_and_says_what_it_has(buildah: Builder, wheels: Path) -> None:
    with built(buildah, wheels, "") as (image, root):
        manifest = json.loads(json.loads(buildah("inspect", "--type=image", image))["Manifest"])
        _, *added = [layer["size"] for layer in manifest["layers"]]
        assert sum(added) <= LIMIT_BYTES, added
        components = json.loads((root / "opt/coordinator/share/sbom.cdx.json").read_text("utf-8"))["components"]
        listed = {re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"] for each in components}
        assert listed.pop("coordinatord")
        assert listed == pinned(ROOT / "deploy/image/run.txt")
        programs = {path.name for path in (root / "opt/coordinator/bin").iterdir()}
        assert "coordinator" in programs
        assert not any(name.startswith("pip") for name in programs)


@contextmanager
def container(root: Path, log: Path, *command: str, **environment: str) -> Iterator[psutil.Process]:
    """Run a command in the image; give its process."""
    given = [f"{name}={value}" for name, value in environment.items()]
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", CONTAINER]
    with log.open("w") as output:
        process = subprocess.Popen([*isolated, root, str(USER), *given, *command], stdout=output, stderr=output)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


async def test_a_container_serves_on_its_embedded_server_and_ends_in_order(
    buildah: Builder, wheels: Path, tmp_path: Path
) -> None:
    with built(buildah, wheels, "embedded") as (image, root):
        config = json.loads(json.loads(buildah("inspect", "--type=image", image))["Config"])["config"]
        path = {
            "PATH": config["Env"][0].partition("=")[2].replace("$PATH", "/usr/bin:/bin"),
            "COORDINATOR_PORT": str(PORT),
        }
        variables = dict(each.split("=", 1) for each in config["Env"][1:]) | path
        log = tmp_path / "log"
        health = config["Healthcheck"]["Test"][1:]
        with container(root, tmp_path / "before", *health, **variables) as check:
            assert check.wait() == 1
        arguments = [*config["Entrypoint"], "serve", "--host", "127.0.0.1"]  # its CMD, on loopback
        with container(root, log, *arguments, **variables) as shell:
            async with http_client() as client:

                async def ready() -> bool:
                    assert shell.is_running(), log.read_text()
                    try:
                        return (await client.get(f"http://127.0.0.1:{PORT}/readyz")).status_code == 200
                    except httpx.TransportError:
                        return False

                await until(ready, "the container serves", every_s=0.2)
                with container(root, tmp_path / "after", *health, **variables) as check:
                    assert check.wait() == 0
                (daemon,) = shell.children()
                assert (daemon.uids().real, daemon.gids().real) == (USER, USER)
                status = dict(
                    line.split(":\t", 1) for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
                )
                assert {int(status[f"Cap{each}"], 16) for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
                daemon.send_signal(signal.SIGTERM)
                assert shell.wait() == 0, log.read_text()
