"""sql/README.md: what it lists is what the files have, and its examples run."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import asyncpg

from coordinator.db import schema
from coordinator.embedded import binaries
from coordinator.errors import CoordinatorError, from_sqlstate

README = (Path(__file__).parent.parent.parent / "sql" / "README.md").read_text("utf-8")
FILES = "\n".join(file.text for file in schema.files())


def psql() -> Path:
    return next(folder / "psql" for folder in binaries.folders() if (folder / "psql").exists())


def test_every_error_code_of_the_files_is_in_the_table_and_no_other() -> None:
    documented = re.findall(r"^\| `(ZC\d{3})` \|", README, re.MULTILINE)
    assert documented == sorted(set(documented))
    assert documented == sorted(set(re.findall(r"'(ZC\d{3})'", FILES)))


def test_every_error_code_has_its_place_in_the_tree_of_errors() -> None:
    codes = set(re.findall(r"'(ZC\d{3})'", FILES))
    assert [code for code in codes if from_sqlstate(code) is CoordinatorError] == []


def test_every_error_that_is_raised_has_a_message_and_a_hint() -> None:
    raised = re.findall(r"raise exception using errcode =.*?;\n", FILES, re.DOTALL)
    assert len(raised) > 40
    assert [text for text in raised if "message =" not in text or "hint =" not in text] == []


def test_every_key_of_an_advisory_lock_is_in_the_lock_order() -> None:
    keys = set(re.findall(r"'(coordinator\.[a-z_]+):'", FILES))
    assert {"coordinator.rule", "coordinator.directive"} <= keys
    assert [key for key in keys if key not in README.split("## Lock order")[1]] == []


def test_functions_and_views_that_are_named_exist() -> None:
    named = set(re.findall(r"coordinator\.([a-z_]+)\(", README))
    defined = set(re.findall(r"create or replace function coordinator\.(\w+)", FILES))
    assert named <= defined


async def test_the_examples_run_unchanged(database_url: str) -> None:
    (example,) = re.findall(r"```psql\n(.*?)```", README, re.DOTALL)
    done = await asyncio.to_thread(
        subprocess.run,
        [psql(), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", database_url],
        input=example, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lines = done.stdout.splitlines()
    assert "0" in lines, "the rule cleared nothing"
    assert "refused" in lines
    assert any(line.startswith("1|project.created") or "custom.build_finished" in line for line in lines)
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("select count(*) from coordinator.projects") == 1
        assert await connection.fetchval("select count(*) from public.builds") == 1
    finally:
        await connection.close()
