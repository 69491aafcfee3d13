"""The program understands what the image and the manifests say. No cluster and no container is needed."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from coordinator.cli.main import program
from coordinator.config import PREFIX, SETTINGS, Config
from coordinator.version import version

ROOT = Path(__file__).parent.parent
MANIFESTS = sorted((ROOT / "deploy" / "k8s").glob("*.yaml"))
DRAIN_S = 10  # what the daemon promises
USER = 10001

Object = dict[str, Any]


def objects(kind: str) -> list[Object]:
    return [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text("utf-8")) if each["kind"] == kind]


def pods() -> list[Object]:
    found: list[Object] = [each["spec"]["template"] for each in objects("Deployment")]
    assert len(found) == len(MANIFESTS) == 2
    return found


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def ours() -> list[Object]:
    found = [each for pod in pods() for each in containers(pod) if each["image"].startswith("coordinator:")]
    assert [each["args"][0] for each in found] == ["sidecar", "serve"]
    return found


def instructions(name: str) -> list[str]:
    """Return the arguments of each instruction of that name in the Dockerfile."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text("utf-8"))
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def variables() -> Iterator[str]:
    for container in ours():
        yield from (each["name"] for each in container.get("env", []))
    for line in instructions("ENV"):
        yield from (word.partition("=")[0] for word in shlex.split(line))


def understood(arguments: list[str]) -> None:
    """Parse a command line as the program does, without running it."""
    with click.Context(program) as ctx:
        command = program.get_command(ctx, arguments[0])
        assert command, arguments
        command.make_context(arguments[0], arguments[1:], parent=ctx)


def test_every_command_line_is_one_that_the_program_understands() -> None:
    lines = [container["args"] for container in ours()] + [yaml.safe_load(line) for line in instructions("CMD")]
    assert len(lines) == 3
    for line in lines:
        understood(list(line))
    with pytest.raises(click.NoSuchOption):
        understood(["serve", "--no-such-option"])


def test_every_variable_is_one_that_the_program_reads() -> None:
    read = {setting.variable for setting in SETTINGS.values()} | {setting.alias for setting in SETTINGS.values()}
    read |= {f"{setting.variable}_FILE" for setting in SETTINGS.values() if setting.secret}
    named = {name for name in variables() if name.startswith(PREFIX) or name in ("POD_NAME", "POD_NAMESPACE")}
    assert {"COORDINATOR_DATABASE_URL", "COORDINATOR_TOKEN", "COORDINATOR_DATA_DIR", "POD_NAME"} <= named <= read


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


def test_image_user_and_port_are_the_same_everywhere() -> None:
    assert {each["image"] for each in ours()} == {f"coordinator:{version()}"}
    assert instructions("USER") == [f"{USER}:{USER}"]
    assert {pod["spec"]["securityContext"]["runAsUser"] for pod in pods()} == {USER}
    (service,) = objects("Service")
    (daemon,) = (pod for pod in pods() if pod["metadata"]["labels"] == service["spec"]["selector"])
    (port,) = daemon["spec"]["containers"][0]["ports"]
    assert (
        port["containerPort"] == service["spec"]["ports"][0]["port"] == Config().port == int(instructions("EXPOSE")[0])
    )
    assert daemon["metadata"]["annotations"]["prometheus.io/port"] == str(Config().port)
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        (guard,) = objects(kind)
        selector = guard["spec"].get("selector") or guard["spec"]["podSelector"]
        assert selector["matchLabels"] == service["spec"]["selector"]


def test_no_container_may_do_more_than_it_must() -> None:
    for pod in pods():
        spec = pod["spec"]
        assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            for variable in container.get("env", []):  # addresses and tokens come from a secret, never from the file
                assert "value" not in variable, variable
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= {volume["name"] for volume in spec.get("volumes", [])}


def test_a_pod_has_the_time_to_drain() -> None:
    for pod in pods():
        for container in containers(pod):
            before = int(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])[1])
            assert pod["spec"]["terminationGracePeriodSeconds"] > before + DRAIN_S


def test_no_probe_ends_a_daemon_or_sidecar_that_waits_for_its_database() -> None:
    for container in ours():
        probe = container["startupProbe"]
        assert probe["failureThreshold"] * probe["periodSeconds"] > Config().connect_limit_s
        if "livenessProbe" in container:
            assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
            assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_sidecar_finds_what_the_downward_api_writes() -> None:
    (pod,) = (pod for pod in pods() if "initContainers" in pod["spec"])
    (sidecar,) = pod["spec"]["initContainers"]
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in sidecar["volumeMounts"]}
    (labels,) = (volume for volume in pod["spec"]["volumes"] if "downwardAPI" in volume)
    assert mounts[labels["name"]] / labels["downwardAPI"]["items"][0]["path"] == Config().pod_labels
    fields = {each["name"]: each["valueFrom"].get("fieldRef", {}).get("fieldPath") for each in sidecar["env"]}
    assert (fields["POD_NAME"], fields["POD_NAMESPACE"]) == ("metadata.name", "metadata.namespace")
    (socket,) = (Path(each.partition("=")[2]) for each in sidecar["args"] if each.startswith("--socket="))
    assert mounts["socket"] == socket.parent
