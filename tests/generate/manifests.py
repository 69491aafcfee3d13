"""The generated manifest: the rules and alerts of `deploy/prometheus/`, in the form for the Prometheus operator."""

from __future__ import annotations

import textwrap
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
RULE = DEPLOY / "k8s" / "overlays" / "production" / "prometheus-rule.yaml"
HEAD = '# "make docs" generates this file from deploy/prometheus/rules.yaml and alerts.yaml.\n'
OBJECT = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: coordinator-{name}
spec:
  groups:
"""


def files() -> dict[Path, str]:
    """Return the manifest with its text: an object for each file, whose groups keep their text, including comments."""
    objects = []
    for name in ("rules", "alerts"):
        _, groups = (DEPLOY / "prometheus" / f"{name}.yaml").read_text("utf-8").split("\ngroups:\n")
        objects.append(OBJECT.format(name=name) + textwrap.indent(groups, "  "))
    return {RULE: HEAD + "---\n".join(objects)}
