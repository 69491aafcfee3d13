"""Where the coordinator is, which project is meant, and what happens if it cannot be reached."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.bridge.bridge import project_name, with_address
from coordinator.config import load
from coordinator.config.bridge import bridge_settings
from coordinator.config.store import store_url
from coordinator.errors import ConfigurationError
from tests.bridge.conftest import Agent, Plane
from tests.cli.conftest import Program
from tests.ports import reserve_port


@pytest.mark.parametrize(
    ("project_id", "name"),
    [
        ("default", "default"),
        ("shop_2-b", "shop_2-b"),
        ("TICKET-1", "ticket-1-a6b9617a048f"),
        ("My Shop!", None),
        ("my shop!", None),
        ("Größe", None),
        ("日本", None),
        ("x" * 37, None),
        ("-x", None),
        ("a\nb", None),
        ("\udcff", None),
    ],
)
def test_a_project_id_is_always_the_same_valid_name(project_id: str, name: str | None) -> None:
    found = project_name(project_id)
    assert found == project_name(project_id)
    assert project_name(found) == found, "it is a valid name"
    assert name in (None, found)
    assert found != project_id or project_id == name


def test_project_ids_that_look_alike_stay_apart() -> None:
    assert len({project_name(one) for one in ("My Shop", "my shop", "my-shop", "my_shop", "MY-SHOP", " my shop")}) == 6
    assert project_name("TICKET-1").startswith("ticket-1-")


def test_a_project_is_created_on_first_use(anywhere: Agent) -> None:
    for project_id in ("TICKET-" + anywhere.project, "ticket\n" + anywhere.project):
        assert anywhere.says("feature", "list", RECAC_PROJECT_ID=project_id) == '{"features":[]}\n'
        anywhere.says("signal", "K", "1", RECAC_PROJECT_ID=project_id)
        assert anywhere.signal("K", project_name(project_id)) == "1"


def test_an_agents_token_says_who_can_create_the_project(agent: Agent, plane: Plane) -> None:
    there = {"RECAC_DB_URL": plane.daemon.url, "COORDINATOR_TOKEN": plane.token("agent")}
    said = agent.refuses("signal", "K", "1", **there)
    assert f'there is no project "{agent.project}"' in said
    (command,) = re.findall(r'"(coordinator [^"]+)"', said)
    assert command == f"coordinator --url {plane.daemon.url} project create {agent.project}"
    administrator = Program(agent.folder, {"COORDINATOR_TOKEN": plane.token("admin")})
    assert administrator.run(*shlex.split(command)[1:]).returncode == 0, "it runs as it is printed"
    assert agent.says("signal", "K", "2", **there) == "Signal K set to 2.\n"
    assert agent.signal("K") == "2"


def test_a_command_in_a_hint_names_the_server_that_recacs_variable_names(agent: Agent) -> None:
    agent.says("lock", "a.py", "--agent", "one")
    said = agent.refuses("lock", "a.py", "--agent", "two")
    (command,) = re.findall(r'"(coordinator [^"]+)"', said)
    done = Program(agent.folder, {}).run(*shlex.split(command)[1:])
    assert done.returncode == 0, done
    assert "please release a.py" in agent.says("directives", "--agent", "one")


def test_a_command_in_a_hint_has_no_password_and_for_somebody_else_no_user() -> None:
    address = "postgresql://agent:secret@db:5433/d?sslmode=require&sslpassword=hidden"
    hint = 'Run "coordinator project create x".'
    assert with_address(hint, address) == (
        "Run \"coordinator --url 'postgresql://agent@db:5433/d?sslmode=require' project create x\"."
    )
    assert with_address(hint, address, as_other=True) == (
        "Run \"coordinator --url 'postgresql://db:5433/d?sslmode=require' project create x\"."
    )
    assert with_address(hint, None) == hint


@pytest.mark.parametrize("interface", ["database", "daemon"])
def test_an_unavailable_coordinator_is_an_error_in_one_line(agent: Agent, interface: str) -> None:
    scheme = {"database": "postgresql://u@", "daemon": "http://"}[interface]
    there = {"RECAC_DB_URL": f"{scheme}127.0.0.1:{reserve_port()}" + "/x" * (interface == "database")}
    for arguments in (["qa"], ["feature", "list"], ["history"]):
        assert agent.refuses(*arguments, **there).startswith("failed to connect to database: ")


def test_a_wrong_token_is_an_error_in_one_line(agent: Agent, plane: Plane) -> None:
    said = agent.refuses("qa", RECAC_DB_URL=plane.daemon.url, COORDINATOR_TOKEN="coo_" + "x" * 43)
    assert said.startswith("error executing command: ")
    assert "token" in said


async def test_a_database_without_the_schema_is_an_error_in_one_line(agent: Agent, empty_url: str) -> None:
    said = agent.refuses("qa", RECAC_DB_URL=empty_url)
    (command,) = re.findall(r'"(coordinator [^"]+ schema apply)"', said)
    assert shlex.split(command) == ["coordinator", "--url", empty_url, "schema", "apply"]


@pytest.mark.parametrize(
    "recac",
    [
        {"RECAC_DB_TYPE": "sqlite", "RECAC_DB_URL": ".recac.db"},
        {"RECAC_DB_TYPE": "SQLite3", "RECAC_DB_URL": ""},
        {"RECAC_DB_TYPE": "", "RECAC_DB_URL": "/srv/recac.db"},
    ],
)
def test_for_sqlite_the_configured_coordinator_is_used_with_a_notice(agent: Agent, recac: dict[str, str]) -> None:
    done = agent.run("qa", **recac, COORDINATOR_DATABASE_URL=agent.database_url)
    assert (done.returncode, done.stdout) == (0, "QA trigger signal set.\n")
    (line,) = done.stderr.splitlines()
    assert line.endswith(": the configured coordinator is used, not a SQLite file")
    assert not list(agent.folder.glob("*.db"))


def test_without_recacs_variables_the_settings_of_coordinator_apply(agent: Agent) -> None:
    none = {"RECAC_DB_TYPE": "", "RECAC_DB_URL": "", "RECAC_PROJECT_ID": ""}
    agent.says("blocker", "x", **none, COORDINATOR_DATABASE_URL=agent.database_url)
    assert agent.signal("BLOCKER", "default") == "x"
    assert "no embedded server runs" in agent.refuses("blocker", "x", **none)


def test_an_address_needs_no_type(agent: Agent) -> None:
    agent.says("qa", RECAC_DB_TYPE="")
    assert agent.signal("TRIGGER_QA") == "true"


@pytest.mark.parametrize(
    ("recac", "said"),
    [
        ({"RECAC_DB_TYPE": "mysql"}, "unsupported store type: mysql"),
        ({"RECAC_DB_TYPE": "postgres", "RECAC_DB_URL": ""}, "postgres connection string is required"),
        ({"RECAC_DB_URL": "host=x dbname=y"}, "is not the address of a database"),
        ({"COORDINATOR_TOKEN": "x"}, "is not a token"),
    ],
)
def test_a_wrong_setting_is_an_error_in_one_line(agent: Agent, recac: dict[str, str], said: str) -> None:
    found = agent.refuses("qa", **recac)
    assert found.startswith("failed to connect to database: ")
    assert said in found


def test_a_profile_takes_the_store_of_recac(tmp_path: Path) -> None:
    file = tmp_path / "coordinator.yaml"
    told: list[str] = []

    def loaded(text: str) -> str | None:
        file.write_text(f"profile: dev\nprofiles:\n  dev:\n{text}", "utf-8")
        return load(file=str(file), environment={}, note=told.append).database_url

    url = "postgresql://u@h/d"
    assert loaded(f"    store: {{type: postgres, connection_string: {url}}}\n") == url
    assert loaded(f"    store.connection_string: {url}\n") == url
    assert told == []
    assert loaded("    store: {type: sqlite, connection_string: .recac.db}\n") is None
    assert told == [
        f'store.type of profile "dev" in {file} is sqlite: the configured coordinator is used, not a SQLite file'
    ]
    assert loaded(f"    store: {{type: sqlite}}\n    database_url: {url}\n") == url
    for wrong in ("{type: mysql}", "{type: postgres}", f"{{connection_string: {url}}}\n    database_url: {url}"):
        with pytest.raises(ConfigurationError):
            loaded(f"    store: {wrong}\n")


def test_a_store_without_a_type_has_the_type_of_its_address() -> None:
    assert store_url(None, None, "x") == (None, None)
    assert store_url("", "http://h", "x") == ("http://h", None)
    url, told = store_url(None, ".recac.db", "RECAC_DB_URL")
    assert (url, told is not None) == (None, True)


def test_recacs_variables_come_before_those_of_coordinator() -> None:
    told: list[str] = []
    environment = {"COORDINATOR_DATABASE_URL": "postgresql://a@h/a", "COORDINATOR_PROJECT": "own"}
    found = bridge_settings(told.append, environment)
    assert (found.config.database_url, found.project_id, found.named) == ("postgresql://a@h/a", "own", False)
    environment |= {"RECAC_DB_URL": "https://h", "RECAC_PROJECT_ID": "T-1", "RECAC_AGENT_ID": "coder"}
    found = bridge_settings(told.append, environment)
    assert (found.config.database_url, found.project_id, found.named, found.agent) == (
        "https://h",
        "T-1",
        True,
        "coder",
    )
    assert told == []


def test_a_signal_over_http_imports_what_it_needs(agent: Agent, plane: Plane) -> None:
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); from coordinator.bridge.main import main; main()"
    environment = {**agent.environment, "RECAC_DB_URL": plane.daemon.url, "COORDINATOR_TOKEN": plane.token("admin")}
    done = subprocess.run(
        [sys.executable, "-c", code, "signal", "X", "1"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "Signal X set to 1.\n"
    unwanted = {
        "asyncio",
        "anyio",
        "aiohttp",
        "asyncpg",
        "sqlite3",
        "click",
        "yaml",
        "structlog",
        "prometheus_client",
    }
    assert unwanted & {*done.stderr.split()} == set()
