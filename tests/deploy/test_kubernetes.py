"""A real kustomize renders the manifests, and the program understands what it makes.

That is valid for three versions of Kubernetes, and names only what is there. No cluster is needed. `make operations` checks the custom
resources against their schemas.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import click
import kubernetes_validate
import pytest
import yaml

from coordinator.config import PREFIX, Config
from coordinator.db.connection import connect
from coordinator.version import version
from tests.conftest import admin
from tests.deploy.rendered import (
    FOLDERS,
    KUBERNETES,
    Object,
    containers,
    named,
    pods,
    rendered,
    with_components,
)
from tests.deploy.understood import USER, read, understood
from tests.test_monitoring import ALERTS

VERSIONS = ["1.29", "1.33", kubernetes_validate.latest_version()]  # the oldest that has native sidecars, and newer ones
CUSTOM = {"postgresql.cnpg.io", "barmancloud.cnpg.io", "monitoring.coreos.com"}
DRAIN_S = 10  # what the daemon promises
SCHEMA_JOB = (
    f"coordinator-schema-{version().replace('.', '-')}"  # a DNS label: Kubernetes warns of any other name of a Job
)
AGENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: mine, labels: {coordinator-sidecar: enabled}}
spec:
  selector: {matchLabels: {app: mine}}
  template:
    metadata: {labels: {app: mine}}
    spec:
      initContainers: [{name: prepare, image: "busybox:1.37"}]
      containers: [{name: main, image: "busybox:1.37", volumeMounts: [{name: work, mountPath: /work}]}]
      volumes: [{name: work, emptyDir: {}}]
"""
NOBODY = AGENT.replace("enabled", "disabled")


@pytest.fixture(scope="module")
def everything() -> dict[str, list[Object]]:
    """Return the objects of each folder."""
    return {folder: [*rendered(folder)] for folder in FOLDERS}


def ours(objects: list[Object]) -> list[tuple[Object, Object]]:
    """Return the containers of our image, each with its pod."""
    return [(one, pod) for pod in pods(objects) for one in containers(pod) if one["image"].startswith("coordinator:")]


def test_every_file_belongs_to_a_kustomization() -> None:
    used = set()
    for path in KUBERNETES.rglob("kustomization.yaml"):
        used.add(path)
        found = yaml.safe_load(path.read_text("utf-8"))
        paths = found.get("resources", []) + found.get("components", [])
        paths += [patch["path"] for patch in found.get("patches", []) if "path" in patch]
        paths += [name for each in found.get("configMapGenerator", []) for name in each.get("envs", [])]
        used |= {path.parent / name for name in paths if not (path.parent / name).is_dir()}
    assert used == {path for path in KUBERNETES.rglob("*") if path.is_file()}


@pytest.mark.parametrize("release", VERSIONS)
def test_objects_are_valid(everything: dict[str, list[Object]], release: str) -> None:
    kinds = set()
    for objects in everything.values():
        for each in objects:
            if each["apiVersion"].split("/")[0] in CUSTOM:
                continue
            kubernetes_validate.validate(each, release, strict=True)
            kinds.add(each["kind"])
    assert {"Deployment", "Job", "PodDisruptionBudget", "NetworkPolicy", "ServiceAccount"} <= kinds


def test_a_misspelt_field_is_not_valid() -> None:
    daemon = yaml.safe_load(yaml.safe_dump(named(rendered("base"), "Deployment")["coordinator"]))
    daemon["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        kubernetes_validate.validate(daemon, VERSIONS[0], strict=True)


def references(pod: Object) -> Iterator[tuple[str, str, bool]]:
    """Yield kind and name of what a pod refers to, and whether it needs that to start."""
    for container in containers(pod):
        for source in container.get("envFrom", []):
            yield "ConfigMap", source["configMapRef"]["name"], True
        for variable in container.get("env", []):
            if "secretKeyRef" in variable.get("valueFrom", {}):
                yield "Secret", variable["valueFrom"]["secretKeyRef"]["name"], True
    for volume in pod["spec"].get("volumes", []):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"], not volume["secret"].get("optional", False)
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"], True
    if "serviceAccountName" in pod["spec"]:
        yield "ServiceAccount", pod["spec"]["serviceAccountName"], True


def test_every_name_is_that_of_an_object(everything: dict[str, list[Object]]) -> None:
    beside = {  # what an operator or a command in docs/containers.md creates
        "base": {("Secret", "coordinator-database-app")},
        "agent": {("Secret", "coordinator-agent")},
        "overlays/dev": set(),
        "overlays/production": {("Secret", "coordinator-database-app")},
    }
    for folder, objects in everything.items():
        needed = {(kind, name) for pod in pods(objects) for kind, name, needed in references(pod) if needed}
        assert needed - {(one["kind"], one["metadata"]["name"]) for one in objects} == beside[folder], folder


def test_a_pod_mounts_the_volumes_that_it_has(everything: dict[str, list[Object]]) -> None:
    for objects in everything.values():
        claims = {
            claim["metadata"]["name"]
            for one in objects
            for claim in one.get("spec", {}).get("volumeClaimTemplates", [])
        }
        for pod in pods(objects):
            mounted = {mount["name"] for each in containers(pod) for mount in each.get("volumeMounts", [])}
            assert mounted == {volume["name"] for volume in pod["spec"].get("volumes", [])} | (mounted & claims)


def test_what_selects_pods_selects_the_daemons_and_no_others() -> None:
    for folder in ("base", "overlays/dev", "overlays/production"):
        objects = rendered(folder)
        labels = {
            one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"].items()
            for one in objects
            if one["kind"] in ("Deployment", "StatefulSet", "Job")
        }
        labels |= {
            name: one["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"].items()
            for name, one in named(objects, "CronJob").items()
        }

        def selected(selector: dict[str, str], labels: dict[str, Any] = labels) -> set[str]:
            return {name for name, found in labels.items() if selector.items() <= found}

        service = named(objects, "Service")["coordinator"]
        daemon = named(objects, "Deployment")["coordinator"]["spec"]
        budget = named(objects, "PodDisruptionBudget")["coordinator"]["spec"]["selector"]["matchLabels"]
        (spread,) = daemon["template"]["spec"]["topologySpreadConstraints"]
        for selector in (service["spec"]["selector"], budget, spread["labelSelector"]["matchLabels"]):
            assert selected(selector) == {"coordinator"}
        assert selected(daemon["selector"]["matchLabels"]) == {"coordinator"}
        policy = named(objects, "NetworkPolicy")["coordinator"]["spec"]["podSelector"]["matchLabels"]
        assert selected(policy) == {"coordinator", SCHEMA_JOB, *named(objects, "CronJob")}
        for monitor in named(objects, "ServiceMonitor").values():
            assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
            assert [each["port"] for each in monitor["spec"]["endpoints"]] == [
                port["name"] for port in service["spec"]["ports"]
            ]
            job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
            assert f'job="{job}"' in ALERTS["CoordinatorDown"]["expr"]


def test_every_command_line_is_one_that_the_program_understands(everything: dict[str, list[Object]]) -> None:
    lines = [container["args"] for objects in everything.values() for container, _ in ours(objects)]
    assert {line[0] for line in lines} == {"serve", "schema", "sidecar", "backup"}
    for line in lines:
        understood(list(line))
    with pytest.raises(click.NoSuchOption):
        understood(["serve", "--no-such-option"])


def environment(container: Object, objects: list[Object]) -> dict[str, str]:
    """Return the variables of a container; of those that come from elsewhere the name alone."""
    maps = named(objects, "ConfigMap")
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps.get(source["configMapRef"]["name"], {}).get("data", {})
    return found | {variable["name"]: variable.get("value", "") for variable in container.get("env", [])}


def test_every_variable_is_one_that_program_or_driver_reads(everything: dict[str, list[Object]]) -> None:
    for objects in everything.values():
        for container, _ in ours(objects):
            assert environment(container, objects).keys() <= read() | {"PGUSER", "PGPASSWORD"}


@pytest.mark.parametrize("folder", ["base", "overlays/dev", "overlays/production"])
def test_daemons_and_schema_have_addresses_without_secrets_which_lead_to_services(folder: str) -> None:
    objects = [*rendered(folder)]
    services = named(objects, "Service").keys() | named(objects, "Pooler").keys()
    services |= {f"{cluster}-rw" for cluster in named(objects, "Cluster")}  # as the operator names them
    if folder == "base":
        services |= {"postgres"}
    containers = ours(objects)
    assert len(containers) == 2 + len(named(objects, "CronJob"))
    for container, pod in containers:
        given = environment(container, objects)
        assert {"PGUSER", "PGPASSWORD"} <= given.keys()
        direct = urlsplit(given[f"{PREFIX}DIRECT_URL"])
        for url in (direct, urlsplit(given[f"{PREFIX}DATABASE_URL"])):
            assert url.hostname in services
            assert (url.port, url.path, url.username, url.password) == (5432, "/coordinator", None, None)
        assert direct.hostname not in named(objects, "Pooler")
        for variable in container.get("env", []):  # what is secret comes from a secret, never from the file
            assert "value" not in variable, variable
        if folder == "overlays/production":
            (mount,) = (each for each in container["volumeMounts"] if each["name"] == "database-authority")
            (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == "database-authority")
            authority = f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
            assert direct.query == f"sslmode=verify-full&sslrootcert={authority}"


def test_the_servers_certificate_has_the_names_that_clients_verify() -> None:
    objects = rendered("overlays/production")
    (cluster,) = named(objects, "Cluster").values()
    name = cluster["metadata"]["name"]
    assert cluster["spec"]["certificates"]["serverAltDNSNames"] == [*named(objects, "Pooler")]
    (pod,) = (pod for pod in pods(objects) if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "daemon")
    assert {name for kind, name, _ in references(pod) if kind == "Secret"} == {f"{name}-app", f"{name}-ca"}
    for kind in ("Pooler", "ScheduledBackup"):
        (user,) = named(objects, kind).values()
        assert user["spec"]["cluster"]["name"] == name
    assert cluster["spec"]["bootstrap"]["initdb"]["database"] == "coordinator"


def test_the_server_has_the_settings_that_sessions_of_the_pooler_cannot_make() -> None:
    (cluster,) = named(rendered("overlays/production"), "Cluster").values()
    parameters = cluster["spec"]["postgresql"]["parameters"]
    assert (parameters["jit"], parameters["client_connection_check_interval"]) == ("off", "2s")


def test_backups_go_where_the_archive_goes() -> None:
    objects = rendered("overlays/production")
    (cluster,) = named(objects, "Cluster").values()
    (plugin,) = cluster["spec"]["plugins"]
    (backup,) = named(objects, "ScheduledBackup").values()
    assert [plugin["parameters"]["barmanObjectName"]] == [*named(objects, "ObjectStore")]
    assert backup["spec"]["pluginConfiguration"]["name"] == plugin["name"]
    assert len(backup["spec"]["schedule"].split()) == 6  # with seconds


def test_a_dump_is_made_each_night_and_verified_each_week_where_it_was_written() -> None:
    crons = named(rendered("overlays/production"), "CronJob")
    made, verified = crons["coordinator-backup"], crons["coordinator-backup-verify"]
    assert [cron["spec"]["schedule"].split()[2:] for cron in (made, verified)] == [["*", "*", "*"], ["*", "*", "0"]]
    folders = set()
    for cron in (made, verified):
        assert cron["spec"]["concurrencyPolicy"] == "Forbid"
        pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        (mount,) = (each for each in container["volumeMounts"] if each["name"] == "dumps")
        (volume,) = (each for each in pod["volumes"] if each["name"] == "dumps")
        assert container["args"][container["args"].index("--dir") + 1] == mount["mountPath"]
        folders.add(volume["persistentVolumeClaim"]["claimName"])
    assert len(folders) == 1
    assert made["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"][-2:] == ["--keep", "30d"]


def test_no_acknowledged_commit_is_on_one_server_alone() -> None:
    (cluster,) = named(rendered("overlays/production"), "Cluster").values()
    assert cluster["spec"]["instances"] == 3
    assert cluster["spec"]["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}


def test_daemons_check_the_schema_that_a_job_of_their_version_applies() -> None:
    for folder in ("base", "overlays/dev", "overlays/production"):
        objects = [*rendered(folder)]
        assert [*named(objects, "Job")] == [SCHEMA_JOB]
        found = {container["args"][0]: environment(container, objects) for container, _ in ours(objects)}
        assert found["serve"][f"{PREFIX}SCHEMA"] == "verify"
        # a Job cannot be changed, so nothing that it reads has a name that changes with its content
        (job,) = (
            pod for pod in pods(objects) if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "schema"
        )
        for kind, name, _ in references(job):
            assert name in {
                "coordinator",
                "coordinator-database",
                "coordinator-database-app",
                "coordinator-database-ca",
            }, kind


def test_image_user_and_port_are_the_same_everywhere(everything: dict[str, list[Object]]) -> None:
    images = {(one["image"], one["args"][0] == "backup") for objects in everything.values() for one, _ in ours(objects)}
    assert images == {(f"coordinator:{version()}", False), (f"coordinator:{version()}-embedded", True)}
    for objects in everything.values():
        for container, pod in ours(objects):
            assert (
                container["securityContext"].get("runAsUser", pod["spec"]["securityContext"].get("runAsUser")) == USER
            )
    base = rendered("base")
    (daemon,) = (pod for pod in pods(base) if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "daemon")
    (service,) = named(base, "Service").values()
    (port,) = daemon["spec"]["containers"][0]["ports"]
    assert port["containerPort"] == service["spec"]["ports"][0]["port"] == Config().port
    assert daemon["metadata"]["annotations"]["prometheus.io/port"] == str(Config().port)
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]


def test_no_container_may_do_more_than_it_must(everything: dict[str, list[Object]]) -> None:
    for objects in everything.values():
        for pod in pods(objects):
            spec = pod["spec"]
            assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in containers(pod):
                assert (
                    container["securityContext"].items()
                    >= {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    }.items()
                )
                assert container["resources"]["requests"].keys() == {"cpu", "memory"}
                assert "memory" in container["resources"]["limits"]


def test_a_pod_has_the_time_to_drain() -> None:
    for folder in ("base", "agent"):
        for container, pod in ours([*rendered(folder)]):
            before = int(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])[1])
            # 30 seconds, if a pod does not say
            assert pod["spec"].get("terminationGracePeriodSeconds", 30) > before + DRAIN_S


def test_no_probe_ends_a_daemon_or_sidecar_that_waits_for_its_database() -> None:
    for container, _ in ours([*rendered("base"), *rendered("agent")]):
        if container["args"][0] == "schema":
            continue
        probe = container["startupProbe"]
        assert probe["failureThreshold"] * probe["periodSeconds"] > Config().connect_limit_s
        if "livenessProbe" in container:
            assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
            assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_sidecar_finds_what_the_downward_api_writes() -> None:
    (pod,) = pods(rendered("agent"))
    (sidecar,) = pod["spec"]["initContainers"]
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in sidecar["volumeMounts"]}
    (labels,) = (volume for volume in pod["spec"]["volumes"] if "downwardAPI" in volume)
    assert mounts[labels["name"]] / labels["downwardAPI"]["items"][0]["path"] == Config().pod_labels
    fields = {each["name"]: each["valueFrom"].get("fieldRef", {}).get("fieldPath") for each in sidecar["env"]}
    assert (fields["POD_NAME"], fields["POD_NAMESPACE"]) == ("metadata.name", "metadata.namespace")
    label = fields["COORDINATOR_ROLE"].removeprefix("metadata.labels['").removesuffix("']")
    assert label in pod["metadata"]["labels"]
    (socket,) = (Path(each.partition("=")[2]) for each in sidecar["args"] if each.startswith("--socket="))
    (agent,) = pod["spec"]["containers"]
    assert {each["name"]: Path(each["mountPath"]) for each in agent["volumeMounts"]} == {
        name: path for name, path in mounts.items() if path == socket.parent
    }
    assert pod["spec"]["securityContext"]["fsGroup"] == USER


def test_the_sidecar_reaches_the_daemons() -> None:
    (pod,) = pods(rendered("agent"))
    (address,) = (
        urlsplit(each.partition("=")[2]) for each in pod["spec"]["initContainers"][0]["args"] if "http" in each
    )
    assert (address.hostname, address.port) == (
        "coordinator",
        named(rendered("base"), "Service")["coordinator"]["spec"]["ports"][0]["port"],
    )


def test_any_deployment_can_include_the_sidecar_and_keeps_what_it_has(tmp_path: Path) -> None:
    (deployment,) = with_components(tmp_path, AGENT, "sidecar")
    for release in VERSIONS:
        kubernetes_validate.validate(deployment, release, strict=True)
    spec = deployment["spec"]["template"]["spec"]
    assert [(each["name"], each.get("restartPolicy")) for each in spec["initContainers"]] == [
        ("coordinator-sidecar", "Always"),  # first, so that other init containers have it, too
        ("prepare", None),
    ]
    assert spec["containers"] == yaml.safe_load(AGENT)["spec"]["template"]["spec"]["containers"]
    assert {each["name"] for each in spec["volumes"]} == {"work", "coordinator-podinfo", "coordinator-socket"}
    own = spec["initContainers"][0]["securityContext"]  # the pod of an agent need not be restricted
    assert (own["runAsNonRoot"], own["seccompProfile"]) == (True, {"type": "RuntimeDefault"})


def test_a_deployment_without_the_label_gets_no_sidecar(tmp_path: Path) -> None:
    assert with_components(tmp_path, NOBODY, "sidecar") == [yaml.safe_load(NOBODY)]


async def test_an_address_without_a_user_gets_the_one_of_the_environment(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = urlsplit(database_url)
    role = f"daemon_{uuid4().hex[:8]}"
    await admin(database_url, f"create role {role} login password 'secret'")
    monkeypatch.setenv("PGUSER", role)
    monkeypatch.setenv("PGPASSWORD", "secret")
    host = address.netloc.rpartition("@")[2]
    connection = await connect(address._replace(netloc=host).geturl())
    try:
        assert await connection.fetchval("select current_user") == role
    finally:
        await connection.close()
        await admin(database_url, f"drop role {role}")
