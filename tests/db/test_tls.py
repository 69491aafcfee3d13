"""TLS to PostgreSQL, with a server that requires it: what each sslmode accepts, and how it rejects the rest."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.certificate import make_pair
from tests.cli.conftest import Program
from tests.daemon import Daemon, opened
from tests.db.tls_server import ROLE, tls_server


class Place(NamedTuple):
    """A server, the root of its certificate (for 127.0.0.1 only), and another root."""

    folder: Path
    port: int
    root: Path
    other: Path

    def url(self, host: str = "127.0.0.1", **parameters: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://{ROLE}@{host}:{self.port}/postgres?{query}"

    def run(self, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return Program(self.folder, {}).run("--output", "json", "--url", url, *arguments)

    def error(self, url: str, exit_code: int) -> dict[str, Any]:
        done = self.run(url, "signal", "list")
        assert done.returncode == exit_code, done.stderr
        found: dict[str, Any] = json.loads(done.stderr)["error"]
        assert found["hint"]
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = make_pair(folder, "server")
    other, _ = make_pair(folder, "other")
    with tls_server(folder, certificate, key) as port:
        found = Place(folder, port, certificate, other)
        applied = found.run(found.url(sslmode="require"), "schema", "apply")
        assert applied.returncode == 0, applied.stderr
        yield found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca"])
def test_a_mode_that_compares_no_names_takes_any_name(place: Place, host: str, mode: str) -> None:
    root = {"sslrootcert": str(place.root)} if mode == "verify-ca" else {}
    done = place.run(place.url(host, sslmode=mode, **root), "signal", "list")
    assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stderr


def test_verify_full_takes_the_right_root_and_name(place: Place) -> None:
    done = place.run(place.url(sslmode="verify-full", sslrootcert=str(place.root)), "signal", "list")
    assert done.returncode == 0, done.stderr


def test_verify_full_refuses_a_wrong_name(place: Place) -> None:
    found = place.error(place.url("localhost", sslmode="verify-full", sslrootcert=str(place.root)), 7)
    assert found["name"] == "database-unavailable"
    assert "certificate" in found["message"]
    assert "localhost" in found["message"]
    assert "verify-full" in found["hint"]


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
def test_a_wrong_root_is_refused(place: Place, mode: str) -> None:
    found = place.error(place.url(sslmode=mode, sslrootcert=str(place.other)), 7)
    assert found["name"] == "database-unavailable"
    assert "untrusted certificate" in found["message"]
    assert "sslrootcert" in found["hint"]


def test_without_tls_the_server_is_not_reached(place: Place) -> None:
    assert "encryption" in place.error(place.url(sslmode="disable"), 7)["message"]


def test_verify_full_without_any_root_is_a_matter_of_configuration(place: Place) -> None:
    found = place.error(place.url(sslmode="verify-full"), 78)
    assert "root.crt" in found["message"]
    assert "HINT" not in found["message"]


def test_a_mode_that_does_not_exist_is_a_matter_of_configuration(place: Place) -> None:
    assert "Did you mean verify-full?" in place.error(place.url(sslmode="verfy-full"), 78)["hint"]


async def test_every_connection_of_a_daemon_is_encrypted(place: Place) -> None:
    url = place.url(sslmode="verify-full", sslrootcert=str(place.root))
    with Daemon(url) as daemon:
        await daemon.ready()
        async with opened(url) as connection:
            encrypted = await connection.fetch(
                "select ssl from pg_stat_ssl join pg_stat_activity using (pid)"
                " where backend_type = 'client backend' and usename is not null"  # the others are still connecting
            )
        assert len(encrypted) > 3  # the pool's, the gateway's, the one that proves the process alive, and this one
        assert all(row["ssl"] for row in encrypted)
