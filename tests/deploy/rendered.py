"""What kustomize makes of the folders of `deploy/k8s`. The program is part of kubectl, which a package brings; a cluster is not needed."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "k8s"
KUBECTL = Path(sys.executable).with_name("kubectl")
FOLDERS = ["base", "agent", "overlays/dev", "overlays/production"]

Object = dict[str, Any]


def kustomize(folder: Path) -> list[Object]:
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [*yaml.safe_load_all(done.stdout)]


@cache
def rendered(folder: str) -> tuple[Object, ...]:
    return tuple(kustomize(KUBERNETES / folder))


def relative(folder: Path, name: str) -> str:
    """Return the path of a folder of `deploy/k8s`, as kustomize wants it: relative, and without links."""
    return os.path.relpath(KUBERNETES.resolve() / name, folder.resolve())


def with_components(folder: Path, resource: str, *components: str) -> list[Object]:
    """Render a resource, given as YAML, with components, in a folder of the caller's."""
    (folder / "resource.yaml").write_text(resource, "utf-8")
    parts = {
        "resources": ["resource.yaml"],
        "components": [relative(folder, f"components/{one}") for one in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(parts), "utf-8")
    return kustomize(folder)


def named(objects: list[Object] | tuple[Object, ...], kind: str) -> dict[str, Object]:
    """Return the objects of a kind by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def pods(objects: list[Object] | tuple[Object, ...]) -> list[Object]:
    """Return the templates of all pods."""
    found = []
    for one in objects:
        spec = one.get("spec", {})
        if one["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if one["kind"] in ("Deployment", "StatefulSet", "Job", "CronJob"):
            found.append(spec["template"])
    return found


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
