"""One word for one thing: SQL parameters, HTTP fields, Python keywords and options of the command line have the same names.

The fields of an operation are its parameters in SQL (see `test_operations`), and here the others are compared with them, names
and defaults. Each exception has its reason, in the file of its noun.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import click
import msgspec
import pytest

from coordinator import client, operations
from coordinator.api.endpoint import endpoints
from coordinator.client.connection import Client
from coordinator.client.jobs import Jobs
from coordinator.client.locks import Locks
from coordinator.model.operation import Operation, Scope
from coordinator.model.route import plural
from tests import nouns
from tests.cli.test_help import VERBS

PUBLIC = {kind.function: kind for kind in operations.every() if not kind.internal}


def clients() -> Iterator[tuple[str, type[Any]]]:
    """Find the class of each noun of the client, under the noun in the plural."""
    for module in pkgutil.iter_modules(client.__path__, prefix=f"{client.__name__}."):
        nouns = module.name.rpartition(".")[2]
        counted = nouns.endswith("s") or nouns == plural(nouns)
        if counted and (kind := getattr(importlib.import_module(module.name), nouns.capitalize(), None)):
            yield nouns, kind


CLIENTS = dict(clients())


# What differs is in the file of each noun, with the reason.
NOT_IN_PYTHON = nouns.table("NOT_IN_PYTHON")
NOT_ON_THE_COMMAND_LINE = nouns.table("NOT_ON_THE_COMMAND_LINE")
PYTHON_LACKS = nouns.table("PYTHON_LACKS")
PYTHON_ADDS = nouns.table("PYTHON_ADDS")
PYTHON_DEFAULTS = nouns.table("PYTHON_DEFAULTS")
OPTIONS_LACK = nouns.table("OPTIONS_LACK")
OPTIONS_ADD = nouns.table("OPTIONS_ADD")
SPELLED = nouns.table("SPELLED")
OF_THE_CALLER = {"project", "actor"}  # the client and the settings have them


def method_of(function: str) -> Any:
    noun, _, verb = function.partition("_")
    kind = CLIENTS.get(noun) or CLIENTS.get(plural(noun))
    return getattr(kind, verb, None) or getattr(kind, f"{verb}_", None)


@pytest.mark.parametrize("function", PUBLIC)
def test_python_has_the_words_of_sql(function: str) -> None:
    method = method_of(function)
    assert (method is None) == (function in NOT_IN_PYTHON)
    if method is None:
        return
    fields = {*PUBLIC[function].__struct_fields__}
    keywords = {*inspect.signature(method).parameters} - {"self"}
    lacking = fields - keywords - OF_THE_CALLER
    assert lacking == {*PYTHON_LACKS.get(function, ())}
    added = keywords - fields
    assert added == {*PYTHON_ADDS.get(function, ())}


def seconds(default: Any) -> Any:
    return default.total_seconds() if isinstance(default, timedelta) else default


@pytest.mark.parametrize(
    ("method", "function"),
    [
        *((method, function) for function in PUBLIC if (method := method_of(function))),
        (Locks.hold, "lock_acquire"),
        (Jobs.wait, "job_show"),
    ],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_a_method_has_the_defaults_of_its_operation(method: Callable[..., Any], function: str) -> None:
    """Each is written twice, and here held to be one."""
    of_operation = {
        field.name: field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        for field in msgspec.structs.fields(PUBLIC[function])
        if not field.required
    }
    for name, parameter in inspect.signature(method).parameters.items():
        if name in {*of_operation} - {*PYTHON_DEFAULTS.get(function, ())} and parameter.default is not parameter.empty:
            mine = parameter.default
            assert seconds(mine) == seconds(of_operation[name]) or (not mine and not of_operation[name]), name


@pytest.mark.parametrize("function", PUBLIC)
def test_the_command_line_has_the_words_of_sql(function: str) -> None:
    command = VERBS.get(function.replace("_", " "))
    assert (command is None) == (function in NOT_ON_THE_COMMAND_LINE)
    if command is None:
        return
    fields = {*PUBLIC[function].__struct_fields__}
    spelled = {SPELLED.get(function, {}).get(field, field) for field in fields}
    words: set[str] = set()
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            words.add(parameter.name or "")
        elif parameter.expose_value:
            words |= {one.removeprefix("--").replace("-", "_") for one in parameter.opts if one.startswith("--")}
    lacking = spelled - words - OF_THE_CALLER
    assert lacking == {*OPTIONS_LACK.get(function, ())}
    added = words - spelled - {"help"}
    assert added == {*OPTIONS_ADD.get(function, ())}


@pytest.mark.parametrize("endpoint", endpoints(), ids=lambda endpoint: endpoint.operation.function)
def test_http_has_the_words_of_sql(endpoint: Any) -> None:
    kind: type[Operation[Any]] = endpoint.operation
    assert [field.encode_name for field in msgspec.structs.fields(endpoint.parameters)] == [*kind.__struct_fields__]
    # A query repeats a parameter for each value, so it is in the singular.
    assert all(name is None or f"{name}s" == field for field, name in kind.query_names.items())


def test_every_exception_is_of_an_operation() -> None:
    tables = (
        NOT_IN_PYTHON,
        NOT_ON_THE_COMMAND_LINE,
        PYTHON_LACKS,
        PYTHON_ADDS,
        PYTHON_DEFAULTS,
        OPTIONS_LACK,
        OPTIONS_ADD,
        SPELLED,
    )
    assert {function for table in tables for function in table} <= {*PUBLIC}
    assert all({*spelled} <= {*PUBLIC[function].__struct_fields__} for function, spelled in SPELLED.items())


@pytest.mark.parametrize("kind", PUBLIC.values(), ids=lambda kind: kind.function)
def test_a_word_means_one_thing(kind: type[Operation[Any]]) -> None:
    """What is of a project is in `project`, and whoever acts is in `agent` or `actor`, on every verb."""
    fields = {*kind.__struct_fields__}
    # It makes what it names; and p_limit is the length of a page everywhere.
    assert (
        not fields & {"name"}
        or kind.function in ("agent_register", "agent_join", "token_create")
        or kind.function[:6] == "limit_"
    )
    assert not fields & {
        "to",
        "from",
        "token_ids",
        "fencing_token",
        "resource_name",
        "cursor",
        "count",
        "max",
        "size",
        "timeout",
    }
    assert "project" in fields or kind.scope in (Scope.ALL, Scope.NONE, Scope.OWN_ROWS)


def test_the_client_has_a_noun_for_each_class() -> None:
    assert all(name in inspect.getsource(Client) for name in CLIENTS)
