from __future__ import annotations

from coordinator.model.token import SECRET, digest
from tests.cli.conftest import Program


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
