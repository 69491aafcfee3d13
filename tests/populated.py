"""A project with one of everything, and valid calls of every function in it. The parts that belong to a noun are in `tests.nouns`."""

from __future__ import annotations

import asyncpg
import msgspec

from tests import nouns
from tests.nouns import Known

__all__ = ["parameters", "populate", "valid_arguments"]

# By parameter. A parameter that is optional keeps its default, unless a noun has an argument for it in this function.
_ARGUMENTS = {
    "project": "'{project}'",
    "kind": "'a-kind'",
    "key": "'k'",
    "last": "1",
    "name": "'one'",
    "now": "now()",
    "reason": "'why'",
    "value": "'1'",
    "version": "0",
} | nouns.table("ARGUMENTS")
_BY_TYPE = {
    "text": "'x'",
    "text[]": "'{{x}}'",
    "integer": "1",
    "interval": "'1 minute'",
    "jsonb": "'{{}}'",
    "json": "'{{}}'",
    "bytea": "'x'::bytea",
}


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a function, as the catalogue has it."""

    name: str
    type: str
    optional: bool


async def populate(connection: asyncpg.Connection, project: str = "default") -> Known:
    """Make one of everything in a project that has nothing yet; return what arguments need to know of it, by field."""
    known: Known = {"project": project}
    for _, populate_noun in nouns.each("populate"):
        await populate_noun(connection, project, known)
    return known


async def parameters(connection: asyncpg.Connection, function: str) -> list[Parameter]:
    """Return the parameters of a function in their order, without their prefix."""
    rows = await connection.fetch(
        """
        select substr(a.name, 3), format_type(a.type, null), a.place > p.pronargs - p.pronargdefaults
        from pg_proc p, unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[]) with ordinality a (name, type, place)
        where p.pronamespace = 'coordinator'::regnamespace and p.proname = $1 order by a.place""",
        function,
    )
    return [Parameter(*row) for row in rows]


def valid_arguments(function: str, taken: list[Parameter], known: Known) -> dict[str, str]:
    """Return valid arguments of a call, in SQL, by parameter."""
    templates = {
        one.name: _ARGUMENTS.get((function, one.name)) or _ARGUMENTS.get(one.name) or _BY_TYPE.get(one.type)
        for one in taken
        if not one.optional or (function, one.name) in _ARGUMENTS
    }
    missing = [name for name, template in templates.items() if template is None]
    assert not missing, f"say a valid argument for {missing} of {function} in ARGUMENTS of its noun: see tests/nouns"
    return {name: template.format(**known) for name, template in templates.items() if template}
