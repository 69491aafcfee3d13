"""The reference of the SQL functions and views, from their comments in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from tests.generate.markdown import escaped, table
from tests.generate.schema import COLUMNS, FUNCTIONS, VIEWS, spelled

__all__ = ["functions", "views"]


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
        arguments, result = spelled(row["arguments"], row["result"])
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
