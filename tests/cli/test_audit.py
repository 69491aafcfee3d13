"""``coordinator audit``, and the verification of its export by what docs/audit.md says alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

from tests.cli.conftest import Program
from tests.conftest import admin
from tests.daemon import opened
from tests.sql.test_audit import copy


def copied(database_url: str) -> None:
    async def run() -> None:
        async with opened(database_url) as connection:
            await copy(connection)

    asyncio.run(run())


def broken_at(lines: list[str]) -> int | None:
    """Return the first line of an export whose hash is wrong, as docs/audit.md has it."""
    previous = "0" * 64
    for number, line in enumerate(lines, 1):
        text = line[86:-1]
        if json.loads(line)["hash"] != hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest():
            return number
        previous = json.loads(line)["hash"]
    return None


def test_a_trail_is_listed_exported_and_verified(program: Program, database_url: str, tmp_path: Path) -> None:
    assert program.json("audit", "list") == []
    program.run("rule", "set", "A", "B")
    program.run("queue", "set", "q", "--max-waiting", "5")
    program.run("log", "append", "note", "ä", "x")
    program.run("log", "delete", "note", "ä")
    copied(database_url)
    entries = program.json("audit", "list")
    assert [entry["entry"]["event"]["type"] for entry in entries] == ["rule.set", "queue.set", "log.deleted"]
    table = program.text("audit", "list", "--topic", "queue.*")
    assert "queue.set" in table
    assert "rule.set" not in table
    lines = program.run("audit", "export").stdout.splitlines()
    assert [json.loads(line)["entry"] for line in lines] == [entry["entry"] for entry in entries]
    assert broken_at(lines) is None
    assert broken_at([lines[0], lines[1].replace('"q"', '"r"'), lines[2]]) == 2
    assert broken_at([lines[0], lines[2]]) == 2
    head = tmp_path / "head.json"
    head.write_text(json.dumps(program.json("audit", "head")))
    assert json.loads(head.read_text())["hash"] == json.loads(lines[-1])["hash"]
    assert program.text("audit", "verify") == "3 entries intact, up to entry 3\n"
    assert program.json("audit", "verify", "--head", str(head))["checked"] == 3
    asyncio.run(
        admin(
            database_url,
            "delete from coordinator.entries where hash is not null and seq = 3",
            "update coordinator.logs set last_seq = 2 where kind = 'audit'",
        )
    )
    assert program.json("audit", "verify")["checked"] == 2
    assert (
        "entry 3 of the head is not in the trail" in program.fails(4, "audit", "verify", "--head", str(head))["message"]
    )
    head.write_text("{}")
    assert program.fails(5, "audit", "verify", "--head", str(head))["hint"]


def test_what_is_audited_is_chosen(program: Program, database_url: str) -> None:
    assert program.json("audit", "show")["is_default"] is True
    assert program.text("audit", "set", "lock.*") == "audited: lock.*\n"
    assert program.text("audit", "set") == "audited: only audit.*\n"
    assert program.text("audit", "reset").startswith("audited: audit.*, project.*")
    assert program.fails(5, "audit", "set", "Lock!")["hint"]
    program.run("project", "create", "p")
    program.run("project", "delete", "p", "--yes")
    copied(database_url)
    assert [entry["entry"]["event"]["type"] for entry in program.json("audit", "list", "--gone")] == [
        "project.created",
        "project.deleted",
    ]
