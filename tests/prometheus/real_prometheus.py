"""Debian's Prometheus on our files and a real daemon: part of ``make operations``. Grafana is not run."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.operations import jobs, signals
from tests.daemon import Daemon
from tests.debian import unpack
from tests.http_client import http_client
from tests.ports import reserve_port
from tests.test_monitoring import QUERIES
from tests.waiting import until

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
UNPACKED = ROOT / ".tools" / "prometheus"


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of Prometheus and promtool; unpacked from Debian's package, not installed, where they are absent: nothing is started."""
    if shutil.which("prometheus") and (tool := shutil.which("promtool")):
        return Path(tool).parent
    folder = UNPACKED / "usr" / "bin"
    if not (folder / "promtool").exists():
        unpack("prometheus", UNPACKED)
    return folder


def promtool(programs: Path, *arguments: str | Path) -> str:
    done = subprocess.run([programs / "promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_alerts_and_configuration_are_valid(programs: Path) -> None:
    assert "SUCCESS" in promtool(programs, "check", "rules", RULES / "rules.yaml", RULES / "alerts.yaml")
    assert "SUCCESS" in promtool(programs, "check", "config", RULES / "prometheus.yaml")


def test_alerts_fire_when_they_should(programs: Path) -> None:
    assert "SUCCESS" in promtool(programs, "test", "rules", Path(__file__).parent / "alerts_test.yaml")


@contextmanager
def scraping(programs: Path, target: str, folder: Path) -> Iterator[str]:
    """Run Prometheus on a target every second; give its address."""
    config = yaml.safe_load((RULES / "prometheus.yaml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES / name) for name in config["rule_files"]]
    (scrape,) = config["scrape_configs"]
    scrape["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), "utf-8")
    port = reserve_port()
    arguments = [
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([programs / "prometheus", *arguments], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def test_a_daemon_is_scraped_and_every_query_can_be_run(
    programs: Path, database_url: str, config: Config, tmp_path: Path
) -> None:
    async with Database.open(database_url, config) as database:
        with Daemon(database_url) as daemon:
            await (await daemon.ready()).lead()
            await database.run(signals.Set(project="default", key="k", value=1))
            await database.run(jobs.Enqueue(project="default", type='a "hostile" \\ type', payload=1))
            with scraping(programs, urlsplit(daemon.url).netloc, tmp_path) as address:
                async with http_client() as client:

                    async def asked(path: str, **parameters: str) -> Any:
                        try:
                            answer = await client.get(f"{address}/api/v1/{path}", params=parameters)
                        except httpx.TransportError:
                            return None
                        if answer.status_code == 503:  # it starts
                            return None
                        found = answer.json()
                        assert found["status"] == "success", found
                        return found["data"]

                    async def scraped() -> bool:
                        data = await asked("query", query="coordinator_type_jobs")
                        return bool(data and data["result"])

                    await until(scraped, "Prometheus has what the leader sampled", every_s=0.2)
                    (job,) = (await asked("query", query="coordinator_type_jobs"))["result"]
                    assert job["metric"]["type"] == 'a "hostile" \\ type'
                    (target,) = (await asked("targets"))["activeTargets"]
                    assert (target["health"], target["lastError"]) == ("up", "")
                    for query in QUERIES:
                        await asked("query", query=query)

                    async def evaluated() -> bool:
                        rules = [rule for group in (await asked("rules"))["groups"] for rule in group["rules"]]
                        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}, rules
                        return all(rule["health"] == "ok" for rule in rules)

                    await until(evaluated, "every rule was evaluated", every_s=0.2)
                    leader = (await asked("query", query="sum(coordinator_leader)"))["result"]
                    assert [one["value"][1] for one in leader] == ["1"]
