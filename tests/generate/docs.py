"""The generated tables and references in `docs/`. Each is between two comments that name it; the prose around it is written by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import asyncpg
from prometheus_client import Counter, Gauge, Histogram

from coordinator import errors
from coordinator.config import SETTINGS, Setting
from coordinator.doctor.checks import CHECKS
from coordinator.errors import CoordinatorError
from coordinator.model.metric import Metric
from coordinator.model.token import Role
from coordinator.telemetry import metrics
from coordinator.telemetry.samples import Samples
from tests.generate.commands import commands, global_options, list_options
from tests.generate.functions import functions, views
from tests.generate.http import http
from tests.generate.markdown import names, table

DOCS = Path(__file__).parent.parent.parent / "docs"
PART = re.compile(r'(<!-- "make docs" generates this (?:table|part): (\w+) -->\n).*?(<!-- end -->\n)', re.DOTALL)


async def pages(connection: asyncpg.Connection) -> dict[Path, str]:
    """Return the pages with their tables generated again; the database provides events, limits and rights."""
    roles = dict(await connection.fetch("select function, role from coordinator.rights"))
    tables = {
        "events": await _events(connection),
        "limits": await _limits(connection),
        "rights": await _rights(connection),
        "transaction_verbs": await _transaction_verbs(connection),
        "settings": _settings(one for one in SETTINGS.values() if not one.name.startswith("http_")),
        "http_settings": _settings(one for one in SETTINGS.values() if one.name.startswith("http_")),
        "metrics": _metrics(),
        "checks": await _checks(connection),
        "errors": _errors(),
        "global_options": global_options(),
        "list_options": list_options(),
        "commands": commands(),
        "http": http(roles),
        "functions": await functions(connection, roles),
        "views": await views(connection),
    }
    found = {page: page.read_text("utf-8") for page in sorted(DOCS.rglob("*.md"))}
    placed = [name for text in found.values() for _, name, _ in PART.findall(text)]
    assert sorted(placed) == sorted(tables), "each part has one place in docs/"
    return {page: PART.sub(lambda part: part[1] + tables[part[2]] + part[3], text) for page, text in found.items()}


async def _events(connection: asyncpg.Connection) -> str:
    rows = await connection.fetch("select * from coordinator.event_types order by ordinal")
    return table(
        ("type", "key", "data", "what happened"),
        ((f"`{row['type']}`", row["key"], names(row["data"]), row["meaning"]) for row in rows),
    )


async def _checks(connection: asyncpg.Connection) -> str:
    rows = await connection.fetch("select * from coordinator.checks order by ordinal")

    def threshold(value: float | None, unit: str) -> str:
        return "" if value is None else f"{value:,.{0 if value >= 1 else 2}f} {unit}".strip()

    return table(
        ("check", "warning at", "critical at", "what is examined"),
        [
            *((f"[{check.name}](#{check.name})", "", "", check.meaning) for check in CHECKS),
            *(
                (
                    f"[{row['name']}](#{row['name']})",
                    threshold(row["warning"], row["unit"]),
                    threshold(row["critical"], row["unit"]),
                    row["meaning"],
                )
                for row in rows
            ),
        ],
    )


async def _limits(connection: asyncpg.Connection) -> str:
    rows = await connection.fetch("select * from coordinator.limits order by ordinal")
    return table(
        ("limit", "value", "unit", "where it applies"),
        ((f"`{row['name']}`", f"{row['value']:,}", row["unit"] or "", row["meaning"]) for row in rows),
    )


async def _rights(connection: asyncpg.Connection) -> str:
    rows = await connection.fetch("select function, role from coordinator.rights order by function")
    return table(
        ("role", "functions"),
        ((f"`{role.name}`", names(row["function"] for row in rows if row["role"] == role.name)) for role in Role),
    )


async def _transaction_verbs(connection: asyncpg.Connection) -> str:
    rows = await connection.fetch(
        """
        select v.function, v.part, r.role, array(
          select substr(name, 3) || case when place > p.pronargs - p.pronargdefaults then '' else '*' end
          from unnest(p.proargnames[1:p.pronargs]) with ordinality a (name, place) where name <> 'p_project' order by place) as fields
        from coordinator.transaction_verbs v
        join coordinator.rights r on r.function = v.function
        join pg_proc p on p.proname = v.function and p.pronamespace = 'coordinator'::regnamespace
        order by v.part, v.ordinal"""
    )
    return table(
        ("verb", "part", "role", "fields; * is required"),
        ((f"`{row['function']}`", row["part"], f"`{row['role']}`", names(row["fields"])) for row in rows),
    )


def _settings(settings: Iterable[Setting]) -> str:
    def number(value: float) -> str:
        return f"{value:,.16g}"

    return table(
        ("setting", "environment", "default", "range", "unit", "meaning"),
        (
            (
                f"`{one.name}`",
                names(
                    [
                        one.variable,
                        *([one.alias] if one.alias else []),
                        *([f"{one.variable}_FILE"] if one.secret else []),
                    ]
                ),
                one.default_text if one.default is None else f"`{one.default_text}`",
                f"{number(one.min)} to {number(one.max)}"
                if one.max
                else ", ".join(f"`{word}`" for word in one.choices),
                one.unit,
                one.help + (f". A sidecar: at most {number(one.sidecar_max)}" if one.sidecar_max else "") + ".",
            )
            for one in settings
        ),
    )


def declared_metrics() -> dict[str, Metric]:
    """Return every metric by its name in Prometheus."""
    found: dict[str, Metric] = {}
    for collector in metrics.REGISTRY._collector_to_names:
        if isinstance(collector, Samples):
            found |= collector.declared
        elif isinstance(collector, Counter | Gauge | Histogram):
            name = collector._name + ("_total" if collector._type == "counter" else "")
            unit = next((unit for unit in ("seconds", "events", "bytes") if name.endswith(f"_{unit}")), "")
            found[name] = Metric("", collector._type, collector._labelnames, unit, collector._documentation)
    return found


def _metrics() -> str:
    return table(
        ("metric", "type", "labels", "unit", "sampled by", "meaning"),
        (
            (f"`{name}`", one.kind, names(one.labels), one.unit, one.sampler and f"`{one.sampler}`", one.meaning)
            for name, one in declared_metrics().items()
        ),
    )


def _errors() -> str:
    everything = [error for name, error in vars(errors).items() if name in errors.__all__ and isinstance(error, type)]
    own = [error for error in everything if error is not CoordinatorError]
    return table(
        ("class", "name", "SQLSTATE", "HTTP status", "exit code", "meaning", "what to do"),
        (
            (
                f"`{error.__name__}`",
                f"`{error.name}`",
                names(prefix + "…" * (len(prefix) < 5) for prefix, its in errors.BY_SQLSTATE_PREFIX if its is error),
                str(error.http_status),
                str(error.exit_code),
                (error.__doc__ or "").partition("\n")[0],
                error.remedy,
            )
            for error in own
        ),
    )
