"""The settings that apply, and where they came from."""

from __future__ import annotations

import json

from coordinator.config import SETTINGS
from tests.cli.conftest import Program


def shown(program: Program, *arguments: str, **environment: str) -> dict[str, tuple[str | None, str]]:
    done = program.run("config", *arguments, "--output", "json", **environment)
    assert done.returncode == 0, done.stderr
    return {one["setting"]: (one["value"], one["source"]) for one in json.loads(done.stdout)}


def test_every_setting_is_shown_with_the_place_it_came_from(lone: Program) -> None:
    (lone.folder / "coordinator.yaml").write_text("profiles: {dev: {call_timeout_s: 90, max_connections: 3}}")
    found = shown(
        lone, "--project", "shop", "--profile", "dev", COORDINATOR_LOG_LEVEL="error", DATABASE_URL="postgresql://h/d"
    )
    assert list(found) == list(SETTINGS)
    assert found["project"] == ("shop", "--project")
    assert found["log_level"] == ("error", "COORDINATOR_LOG_LEVEL")
    assert found["database_url"] == ("postgresql://h/d", "DATABASE_URL")
    assert found["call_timeout_s"] == ("1m30s", 'call_timeout_s of profile "dev" in coordinator.yaml')
    assert found["min_connections"] == ("3", "max_connections")  # which it may not exceed
    assert found["port"] == ("7420", "default")
    assert found["token"] == (None, "default")


def test_an_address_that_belongs_to_another_database_is_shown_as_ignored(lone: Program) -> None:
    found = shown(
        lone,
        "--url",
        "postgresql://h/d",
        COORDINATOR_DATABASE_URL="postgresql://x/d",
        COORDINATOR_DIRECT_URL="postgresql://y/d",
    )
    assert found["direct_url"] == (None, "ignored: COORDINATOR_DIRECT_URL does not belong to this database_url")


def test_no_secret_is_shown(lone: Program) -> None:
    token = "coo_" + "a" * 43
    (lone.folder / "secret").write_text("postgresql://u:s3cr3t@h/d?sslpassword=s3cr3t&application_name=x")
    environment = {"COORDINATOR_DATABASE_URL_FILE": str(lone.folder / "secret"), "COORDINATOR_TOKEN": token}
    found = shown(lone, **environment)
    assert found["database_url"] == ("postgresql://u@h/d?application_name=x", "COORDINATOR_DATABASE_URL_FILE")
    assert found["token"] == ("(secret)", "COORDINATOR_TOKEN")
    text = lone.run("config", "--all", "--output", "text", **environment).stdout
    assert "(secret)" in text
    assert "s3cr3t" not in text
    assert token not in text


def test_people_see_what_was_set_and_on_request_everything(lone: Program) -> None:
    assert lone.run("config", "--output", "text", COORDINATOR_DATA_DIR="", COORDINATOR_OUTPUT="text").stdout.split()[
        -3:
    ] == [
        "output",
        "text",
        "--output",
    ]
    assert len(lone.text("config", "--all").splitlines()) == 1 + len(SETTINGS)
