from __future__ import annotations

from tests.cli.conftest import Program

PASSWORD = b"four words of a canary\n"


def test_a_user_is_created_verified_changed_listed_and_deleted(program: Program) -> None:
    made = program.json("user", "create", "Ada", "--role", "manager", "--email", "ada@example.org", stdin=PASSWORD)
    assert (made["username"], made["email"], made["role"]) == ("ada", "ada@example.org", "manager")
    assert program.json("user", "verify", "ada", stdin=PASSWORD)["id"] == made["id"]
    error = program.fails(5, "user", "verify", "ada", stdin=b"another text\n")
    assert error["code"] == "ZC504"
    assert program.fails(5, "user", "create", "bob", stdin=b"canary\n")["code"] == "ZC105"
    assert program.fails(5, "user", "create", "bob")["code"] == "ZC101"
    assert program.json("user", "create", "ci", "--no-password")["role"] == "agent"
    assert program.json("user", "set", "ci", "--role", "reader", "--disabled")["disabled_at"]
    assert program.json("token", "create", "t", "--role", "agent", "--user", "ada")["username"] == "ada"
    assert program.fails(5, "token", "create", "t", "--role", "admin", "--user", "ada")["code"] == "ZC105"
    assert [user["username"] for user in program.json("user", "list")] == ["ada", "ci"]
    assert program.json("user", "delete", "ci") == {"username": "ci", "deleted": True}
    assert program.fails(3, "user", "delete", "ci")["code"] == "ZC220"
