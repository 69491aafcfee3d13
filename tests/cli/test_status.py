"""``coordinator status``: on the database, through a daemon, and where nothing answers."""

from __future__ import annotations

import asyncpg
import pytest

from tests.cli.conftest import Program
from tests.daemon import Daemon
from tests.waiting import until


@pytest.mark.slow
async def test_status_is_the_same_from_the_database_and_from_a_daemon(program: Program, database_url: str) -> None:
    lines = program.text("status").splitlines()
    assert any(line.startswith("warning: No daemon leads") for line in lines)
    assert lines[2] == "leader    none; 0 daemons"
    with Daemon(database_url) as daemon:
        await daemon.lead()
        await daemon.ready()
        changing = {"address": "", "warnings": []}  # a server that has just started warns of that for a while
        of_database = of_daemon = {}

        async def same() -> bool:  # once the relay has numbered the event of its start
            nonlocal of_database, of_daemon
            of_database, of_daemon = program.json("status"), program.json("status", "--url", daemon.url)
            return {**of_database, **changing} == {**of_daemon, **changing}

        await until(same, "both say the same")
        assert of_daemon["address"] == daemon.url
        assert of_database["leader"].endswith(f":{daemon.process.pid}")
        assert not [warning for warning in of_database["warnings"] if "leads" in warning]
        assert "daemon    http://" in program.text("status", "--url", daemon.url)
        url = daemon.url
    program.fails(3, "status", "--project", "nowhere")
    program.fails(7, "status", "--url", url)


async def test_status_warns_of_the_schema_of_another_version(program: Program, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("update coordinator.schema_files set program = '9.9'")
    await connection.close()
    assert "the schema that of 9.9" in program.json("status")["warnings"][-1]


def test_status_without_a_database_says_how_to_start_one(lone: Program) -> None:
    assert "coordinator serve" in lone.fails(7, "status")["hint"]
