"""The reference of the SQL functions and views, from their comments in the catalogue."""

from __future__ import annotations

import re
from collections.abc import Mapping

import asyncpg

from tests.generate.markdown import escaped, table
from tests.generate.schema import COLUMNS, VIEWS

__all__ = ["functions", "views"]

FUNCTIONS = """
select p.proname as name, pg_get_function_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result,
       obj_description(p.oid, 'pg_proc') as comment
from pg_proc p where p.pronamespace = 'coordinator'::regnamespace order by p.proname collate "C"
"""


async def functions(connection: asyncpg.Connection, roles: Mapping[str, str]) -> str:
    """Describe the functions that a role may call, by noun."""
    parts: list[str] = []
    noun = ""
    for row in await connection.fetch(FUNCTIONS):
        if row["name"] not in roles:
            continue
        if (found := row["name"].partition("_")[0].removesuffix("s")) != noun:
            noun = found
            parts.append(f"## {noun}\n")
        arguments, result = _spelled(row["arguments"], row["result"])
        separated = ",\n  ".join(_split(arguments))
        call = f"coordinator.{row['name']}(\n  {separated}\n)" if separated else f"coordinator.{row['name']}()"
        parts.append(f"### {row['name']}\n")
        parts.append(f"{escaped(row['comment'])}\n")
        parts.append(f"Role: `{roles[row['name']]}`\n")
        parts.append(f"```sql\n{call}\nreturns {result}\n```\n")
    return "\n".join(parts)


async def views(connection: asyncpg.Connection) -> str:
    """Describe the views with their columns."""
    parts: list[str] = []
    for row in await connection.fetch(VIEWS):
        columns = await connection.fetch(COLUMNS, row["oid"])
        parts.append(f"### {row['name']}\n")
        parts.append(f"{escaped(row['comment'])}\n")
        parts.append(
            table(
                ("column", "type", "meaning"),
                ((f"`{one['name']}`", one["type"], escaped(one["comment"] or "")) for one in columns),
            )
        )
    return "\n".join(parts)


def _spelled(arguments: str, result: str | None) -> tuple[str, str]:
    """Return the arguments and the result of a function in readable form, independent of the server's version."""
    # Some versions write a default's type where others do not.
    arguments = re.sub(r"DEFAULT ('[^']*'|NULL)::[a-z\[\] ]+?(?=,|$)", r"default \1", arguments)
    arguments = arguments.replace("DEFAULT ", "default ").replace("default NULL", "default null")
    return arguments, re.sub(r"^TABLE\(", "table (", result or "")


def _split(arguments: str) -> list[str]:
    """Split a list of parameters at its commas, not at those within a type or a default."""
    parts, depth, quoted = [""], 0, False
    for character in arguments:
        quoted ^= character == "'"
        depth += 0 if quoted else (character in "([") - (character in ")]")
        if character == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
