"""Three PostgreSQL on one machine, led by Patroni with etcd, each with a user and an address of its own.

So a whole node can be killed, paused, or cut off, by its user's processes and by rules of the firewall that know its user. Everything
stays on loopback. It takes root and Debian's packages; `programs` installs them.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest
import yaml

from coordinator.db.connection import LOST
from tests.debian import install
from tests.http_client import http_client
from tests.ports import reserve_port
from tests.waiting import until

__all__ = ["TTL_S", "Cluster", "Node", "cluster", "programs"]

PACKAGES = {
    "patroni": "patroni",
    "etcd": "etcd-server",
    "iptables": "iptables",
    "unshare": "util-linux",
    "pg_ctlcluster": "postgresql",
}
TTL_S = 20  # of the leader's key in etcd, the least that Patroni takes: a dead leader is succeeded after it
LOOP_WAIT_S, RETRY_TIMEOUT_S = 2, 3
FIRST_USER = 61_700  # beyond the users that Debian gives out
NODES = 3

Rule = list[str]


def programs() -> Path:
    """Install what is missing, and return the folder of PostgreSQL's programs."""
    if os.geteuid() != 0:
        pytest.fail("run make operations as root: nodes have users of their own, and the firewall cuts them off")
    install(PACKAGES)
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))


class Node:
    """A machine with Patroni and PostgreSQL."""

    def __init__(self, number: int, folder: Path, logs: Path) -> None:
        self.name = f"node{number}"
        self.user = FIRST_USER + number
        self.address = f"127.0.77.{number}"
        self.port = reserve_port()
        self.rest = reserve_port()
        self.folder = folder / self.name
        self.folder.mkdir()
        self.log = logs / f"{self.name}.log"
        os.chown(self.folder, self.user, self.user)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, configuration: dict[str, Any]) -> None:
        """Start Patroni, which starts PostgreSQL. Nobody but its processes sees that the user exists."""
        (self.folder / "patroni.yaml").write_text(yaml.safe_dump(configuration), "utf-8")
        users = Path("/etc/passwd").read_text("utf-8")
        (self.folder / "passwd").write_text(
            f"{users}{self.name}:x:{self.user}:{self.user}::{self.folder}:/bin/sh\n", "utf-8"
        )
        script = 'mount --bind passwd /etc/passwd && exec setpriv --reuid="$1" --regid="$1" --clear-groups patroni patroni.yaml'
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-ec", script, "sh", str(self.user)],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def processes(self) -> list[psutil.Process]:
        """Return the processes of the node: all of its user."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                if process.uids().real == self.user:
                    found.append(process)
        return found

    def send(self, number: signal.Signals) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """End everything at once, as a loss of power does."""
        self.send(signal.SIGSTOP)  # so that nobody starts anything meanwhile
        while self.processes():
            self.send(signal.SIGKILL)
            if self._process is not None:
                self._process.wait()

    async def is_primary(self) -> bool:
        """Ask its PostgreSQL through its unix socket, which no rule of the firewall concerns."""
        try:
            connection = await asyncpg.connect(host=str(self.folder), port=self.port, user="postgres", timeout=5)
        except LOST:
            return False
        try:
            return not await connection.fetchval("select pg_is_in_recovery()")
        except LOST:
            return False
        finally:
            connection.terminate()

    def rules(self) -> list[Rule]:
        """Return what separates the node from everybody."""
        own = ["-m", "owner", "--uid-owner", str(self.user)]
        others = ["-m", "owner", "!", "--uid-owner", str(self.user)]
        return [
            [*own, "!", "-d", self.address],  # what it sends
            [*others, "-d", self.address],  # what others send it
            ["-s", self.address, "!", "-d", self.address],  # what the kernel answers for it
        ]

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Drop all packets from and to the node during the block: nobody gets an answer, not even a refusal."""
        with dropped(self.rules()):
            yield

    @contextmanager
    def cut_off_from(self, port: int) -> Iterator[None]:
        """Drop what the node sends to a port of this machine during the block; everybody else reaches it."""
        own = ["-m", "owner", "--uid-owner", str(self.user)]
        with dropped([[*own, "-p", "tcp", "--dport", str(port)]]):
            yield


@contextmanager
def dropped(rules: list[Rule]) -> Iterator[None]:
    """Drop the packets that rules match during the block."""
    try:
        for rule in rules:
            subprocess.run(["iptables", "--wait", "-I", "OUTPUT", *rule, "-j", "DROP"], check=True)
        yield
    finally:
        for rule in rules:
            subprocess.run(["iptables", "--wait", "-D", "OUTPUT", *rule, "-j", "DROP"], check=True)


class Cluster:
    """Nodes, and the etcd that they agree by."""

    def __init__(self, folder: Path, logs: Path, bin_dir: Path) -> None:
        folder.chmod(0o755)
        self.nodes = [Node(number, folder, logs) for number in range(1, NODES + 1)]
        self._bin_dir = bin_dir
        self._etcd_folder = folder / "etcd"
        self._logs = logs
        self.etcd_port = reserve_port()

    @property
    def url(self) -> str:
        """Address of whichever node is the primary."""
        hosts = ",".join(f"{node.address}:{node.port}" for node in self.nodes)
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"

    @contextmanager
    def etcd(self) -> Iterator[None]:
        self._etcd_folder.mkdir()
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{reserve_port()}"
        arguments = ["--data-dir", self._etcd_folder, "--listen-client-urls", client, "--advertise-client-urls", client]
        arguments += [
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
            "--initial-cluster",
            f"default={peer}",
        ]
        with (self._logs / "etcd.log").open("wb") as log:
            process = subprocess.Popen(["etcd", *arguments], stdout=log, stderr=log)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def start(self, node: Node) -> None:
        node.start(
            {
                "scope": "coordinator",
                "name": node.name,
                "restapi": dict.fromkeys(("listen", "connect_address"), f"{node.address}:{node.rest}"),
                "etcd3": {"host": f"127.0.0.1:{self.etcd_port}"},
                "bootstrap": {
                    "dcs": {
                        "ttl": TTL_S,
                        "loop_wait": LOOP_WAIT_S,
                        "retry_timeout": RETRY_TIMEOUT_S,
                        "synchronous_mode": True,
                        "synchronous_mode_strict": True,
                        "primary_start_timeout": 0,  # a crashed primary is succeeded, and not awaited
                        "postgresql": {
                            "use_pg_rewind": True,
                            "use_slots": True,
                            # a stopped server loses no power
                            "parameters": {"wal_log_hints": "on", "fsync": "off", "max_connections": 200},
                        },
                    },
                    "initdb": ["data-checksums", {"encoding": "UTF8"}, {"locale": "C"}],
                },
                "postgresql": {
                    "listen": f"{node.address}:{node.port}",
                    "connect_address": f"{node.address}:{node.port}",
                    "data_dir": str(node.folder / "data"),
                    "bin_dir": str(self._bin_dir),
                    "pgpass": str(node.folder / "pgpass"),
                    "use_unix_socket": True,
                    "authentication": {
                        "superuser": {"username": "postgres"},
                        "replication": {"username": "replicator"},
                    },
                    "pg_hba": [
                        "local all all trust",
                        "host all all 127.0.0.0/8 trust",
                        "host replication all 127.0.0.0/8 trust",
                    ],
                    "parameters": {"unix_socket_directories": str(node.folder)},
                },
            }
        )

    async def members(self) -> list[dict[str, Any]]:
        """Return what the nodes say of each other; nothing, if none answers."""
        async with http_client() as client:
            for node in self.nodes:
                with suppress(httpx.HTTPError):
                    answer = await client.get(f"http://{node.address}:{node.rest}/cluster", timeout=2)
                    if answer.is_success:
                        return list(answer.json()["members"])
        return []

    async def primary(self) -> Node | None:
        """Return the node that says that it is the primary and holds the leader's key."""
        async with http_client() as client:
            for node in self.nodes:
                with suppress(httpx.HTTPError):
                    answer = await client.get(f"http://{node.address}:{node.rest}/primary", timeout=1)
                    if answer.is_success:
                        return node
        return None

    async def leader(self) -> Node:
        """Wait until all nodes are at work, one of them as a synchronous standby, and return the leader."""

        async def look() -> Node | None:
            members = await self.members()
            roles = sorted(each["role"] for each in members)
            timelines = {each.get("timeline") for each in members}
            if roles != ["leader", "replica", "sync_standby"] or len(timelines) > 1:
                return None
            if {each["state"] for each in members} > {"running", "streaming"}:
                return None
            (name,) = (each["name"] for each in members if each["role"] == "leader")
            return next(node for node in self.nodes if node.name == name)

        return await until(look, "three nodes, one of them the leader and one synchronous", every_s=0.2)


@asynccontextmanager
async def cluster(folder: Path, logs: Path) -> AsyncIterator[Cluster]:
    """Run a cluster during the block, with its data and its logs in these folders."""
    running = Cluster(folder, logs, programs())
    with running.etcd():
        try:
            for node in running.nodes:
                running.start(node)
            await running.leader()
            yield running
        finally:
            for node in running.nodes:
                node.kill()
