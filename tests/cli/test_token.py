from __future__ import annotations

import shlex

from coordinator.model.token import SECRET, digest
from tests.cli.conftest import Program
from tests.daemon import Daemon


def test_a_token_is_made_shown_once_listed_and_revoked(program: Program) -> None:
    made = program.json("token", "create", "ci", "--role", "agent", "--ttl", "1h")
    assert SECRET.fullmatch(made["secret"])
    assert (made["role"], made["project"], made["name"]) == ("agent", "default", "ci")
    listing = program.run("token", "list").stdout
    assert made["prefix"] in listing
    assert made["secret"] not in listing
    assert digest(made["secret"]) not in listing
    number = str(made["id"])
    assert program.json("token", "revoke", number) == {"token": made["id"], "revoked": True}
    assert program.json("token", "revoke", number)["revoked"] is False
    program.fails(3, "token", "revoke", "999999")


def test_as_text_standard_output_is_the_secret_alone(program: Program) -> None:
    done = program.run("-o", "text", "token", "create", "ci", "--role", "reader")
    assert SECRET.fullmatch(done.stdout.strip())
    assert "this once" in done.stderr
    assert done.stdout.strip() not in done.stderr


def test_a_token_is_for_one_project_by_default(program: Program) -> None:
    program.json("project", "create", "shop")
    assert program.json("-p", "shop", "token", "create", "a", "--role", "manager")["project"] == "shop"
    assert program.json("token", "create", "b", "--role", "manager", "--everywhere")["project"] is None
    assert program.json("token", "create", "c", "--role", "admin")["project"] is None
    program.fails(3, "-p", "nowhere", "token", "create", "d", "--role", "agent")
    assert program.run("token", "create", "e", "--role", "root").returncode == 2


async def test_the_hint_of_a_daemon_without_a_token_leads_to_the_first_one(database_url: str, lone: Program) -> None:
    with Daemon(database_url, access="tokens") as daemon:
        await daemon.ready()
        hint = lone.fails(5, "project", "list", "--url", daemon.url)["hint"]
        assert "COORDINATOR_TOKEN" in hint
        command = shlex.split(hint[hint.index("coordinator token create") :].replace("postgresql://…", database_url))
        secret = lone.json(*("me" if word == "NAME" else word for word in command[1:]))["secret"]
        assert lone.run("project", "list", "--url", daemon.url, COORDINATOR_TOKEN=secret).returncode == 0
        assert lone.fails(5, *command[1:-1], daemon.url, COORDINATOR_TOKEN=secret)["code"] == "42501"
