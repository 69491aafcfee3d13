"""One word for one thing: SQL parameters, HTTP fields, Python keywords and options of the command line have the same names.

The fields of an operation are its parameters in SQL (see `test_operations`), and here the others are compared with them. Each
exception has its reason.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import click
import msgspec
import pytest

from coordinator import client, operations
from coordinator.api.endpoint import endpoints
from coordinator.client.connection import Client
from coordinator.model.operation import Operation, Scope
from coordinator.model.route import plural
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


# What another face does not have, and why.
NOT_IN_PYTHON = {
    **dict.fromkeys(
        ("artifact_abort", "artifact_begin", "artifact_finish", "artifact_write"), "client.artifacts.put(…) joins them"
    ),
    "artifact_read": "client.artifacts.get(…) and stream(…)",
    "lock_cancel": "a wait is cancelled as a task",
    "lock_poll": "acquire polls",
    "position_included": "client.at_least(…) waits",
    "status_show": "client.status()",
    "token_create": "for administrators; the command line draws the secret",
    "token_list": "for administrators",
    "token_revoke": "for administrators",
}
NOT_ON_THE_COMMAND_LINE = {
    **dict.fromkeys(
        ("artifact_abort", "artifact_begin", "artifact_finish", "artifact_write"), "artifact put joins them"
    ),
    "artifact_read": "artifact get",
    "observation_append": "coordinator observe",
    "retention_plan": "retention run --dry-run",
    "events_since": "event tail",
    "job_cancel_children": "job cancel --children",
    "job_enqueue_many": "job enqueue --lines",
    "lock_cancel": "acquire polls, and cancels when it is interrupted",
    "lock_poll": "acquire polls",
    "position_included": "--at-least waits",
    "status_show": "coordinator status",
}
SCOPE = "scope: a class of operations has that name for something else"
OF_THE_CALLER = {"project", "actor"}  # the client and the settings have them
PYTHON_LACKS = {
    ("project_import", "export"): "in the lines",
    ("project_import", "done"): "the database knows",
    **{(f"log_{verb}", "epoch"): "of what expect takes" for verb in ("append", "clear", "delete", "pop")},
    ("message_append", "epoch"): "of what expect takes",
    ("step_append", "epoch"): "of what expect takes",
    ("step_append", "step"): "made of its parts",
    ("agent_register", "process"): "connect(agent=…) keeps the proof of life",
    ("agent_register", "unreserved"): "the gateway sets it",
    ("events_since", "bookmarks"): "the page has the cursor",
    ("lock_acquire", "within"): "the blocks that the task is in",
    ("job_claim", "fences"): "in finished",
    ("job_claim", "results"): "in finished",
    **{(f"memory_{verb}", "memory_scope"): SCOPE for verb in ("list", "record", "search", "supersede")},
}
PYTHON_ADDS = {
    ("project_import", "progress"): "for people who wait",
    ("artifact_put", "moved"): "artifact_write again and again",
    **{("step_append", name): "of the step" for name in ("thought", "action", "observation")},
    ("job_claim", "wait"): "wait=… of the request",
    **{(f"memory_{verb}", "scope"): SCOPE for verb in ("list", "record", "search", "supersede")},
    ("events_since", "everywhere"): "project=None would mean the client's own",
}
OPTIONS_LACK = {
    ("project_export", "after"): "--file continues",
    ("project_export", "limit"): "the export is printed whole",
    ("project_import", "export"): "in the lines",
    ("project_import", "done"): "the database knows",
    ("project_import", "lines"): "on standard input",
    ("step_append", "step"): "made of its parts",
    ("job_output", "limit"): "the output is printed whole",
    ("job_claim", "finished"): "a command finishes with job complete",
    ("job_claim", "fences"): "a command finishes with job complete",
    ("job_claim", "results"): "a command finishes with job complete",
    ("agent_register", "process"): "a command ends before its agent",
    ("agent_register", "unreserved"): "the gateway sets it",
    ("lock_acquire", "within"): "a command holds nothing while it waits",
    ("token_create", "hash"): "made from the secret that the command draws",
    ("token_create", "prefix"): "made from the secret that the command draws",
    **dict.fromkeys(
        ((f"user_{verb}", "password") for verb in ("create", "password", "verify")), "asked for, or on standard input"
    ),
    ("transaction_run", "writes"): "in the file",
    ("transaction_run", "conditions"): "in the file",
}
OPTIONS_ADD = {
    ("project_export", "file"): "standard output, or a file",
    ("retention_run", "dry_run"): "retention_plan",
    ("retention_run", "after"): "retention_plan",
    ("retention_run", "limit"): "retention_plan",
    ("cron_set", "payload"): "a field of the job",
    ("cron_set", "queue"): "a field of the job",
    ("cron_set", "type"): "a field of the job",
    ("job_cancel", "children"): "job_cancel_children",
    ("job_cancel", "agent"): "job_cancel_children",
    ("job_cancel", "fence"): "job_cancel_children",
    ("job_claim", "short"): "the output",
    ("job_claim", "wait"): "wait=… of the request",
    ("job_output", "follow"): "job_output again and again",
    ("job_write", "text"): "a chunk",
    ("job_enqueue", "lines"): "job_enqueue_many",
    **{
        ("job_suspend", option): "of the conditions"
        for option in ("any", "at", "delay", "directive", "event", "signal")
    },
    **{("log_append", name): "of an entry" for name in ("data", "needs", "role", "tokens", "uid")},
    ("log_append", "json"): "how the argument is read",
    ("log_append", "text"): "how the argument is read",
    ("log_read", "data"): "the output",
    ("message_append", "json"): "how the argument is read",
    ("message_window", "data"): "the output",
    **{("step_append", name): "of the step" for name in ("thought", "action", "observation")},
    ("lock_check", "stdin0"): "names on standard input",
    ("project_delete", "yes"): "instead of the question",
    ("session_delete", "yes"): "instead of the question",
    ("queue_set", "strict"): "an ageing of 0",
    ("document_get", "value"): "the output",
    ("signal_get", "value"): "the output",
    ("signal_set", "json"): "how the argument is read",
    ("signal_set", "text"): "how the argument is read",
    ("token_create", "everywhere"): "--project has a default",
    ("user_create", "no_password"): "instead of the question",
    ("transaction_run", "parts"): "the file",
}
SPELLED = {  # on the command line
    ("artifact_put", "artifact"): "name",  # the argument is the file
    ("artifact_put", "media_type"): "type",
    ("artifact_list", "media_type"): "type",
    ("agent_list", "ended"): "all",  # for people, as in directive list
    ("directive_list", "open"): "all",  # the reverse: an option can only be given
    ("agent_register", "labels"): "label",
    ("agent_register", "job_types"): "job_type",  # an option that is repeated is in the singular
    ("job_list", "labels"): "label",
    ("queue_set", "weights"): "weight",
    ("job_ask", "options"): "option",
    ("job_ask", "fallback"): "default",
    ("job_claim", "queues"): "queue",
    ("job_write", "chunks"): "chunk",
    ("job_claim", "types"): "type",
    ("job_enqueue", "labels"): "label",
    ("job_enqueue", "limits"): "limit",
    ("limit_hold", "ttl"): "for",
    ("job_enqueue", "locks"): "lock",
    ("job_reconcile", "fences"): "fence",
    ("job_retry", "from_step"): "from",
    ("job_retry", "from_ordinal"): "ordinal",
    ("log_keep", "kept"): "not",
    ("document_keep", "kept"): "not",
    ("lock_renew", "tokens"): "token",
    **dict.fromkeys(
        ((f"memory_{verb}", "memory_scope") for verb in ("list", "record", "search", "supersede")), "scope"
    ),
    ("lock_release", "tokens"): "token",
    **dict.fromkeys(((f"session_{verb}", "username") for verb in ("create", "list", "set")), "user"),
    **dict.fromkeys(
        [("token_create", "username"), ("project_create", "username"), ("project_set", "username")], "user"
    ),
    **dict.fromkeys(
        ((f"project_{verb}", "project") for verb in ("create", "delete", "export", "import", "set", "show")), "name"
    ),  # --project is the setting
}


def excepted(table: dict[tuple[str, str], str], function: str) -> set[str]:
    return {name for its, name in table if its == function}


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
    assert lacking == excepted(PYTHON_LACKS, function)
    added = keywords - fields
    assert added == excepted(PYTHON_ADDS, function)


@pytest.mark.parametrize("function", PUBLIC)
def test_the_command_line_has_the_words_of_sql(function: str) -> None:
    command = VERBS.get(function.replace("_", " "))
    assert (command is None) == (function in NOT_ON_THE_COMMAND_LINE)
    if command is None:
        return
    fields = {*PUBLIC[function].__struct_fields__}
    spelled = {SPELLED.get((function, field), field) for field in fields}
    words: set[str] = set()
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            words.add(parameter.name or "")
        elif parameter.expose_value:
            words |= {one.removeprefix("--").replace("-", "_") for one in parameter.opts if one.startswith("--")}
    lacking = spelled - words - OF_THE_CALLER
    assert lacking == excepted(OPTIONS_LACK, function)
    added = words - spelled - {"help"}
    assert added == excepted(OPTIONS_ADD, function)


@pytest.mark.parametrize("endpoint", endpoints(), ids=lambda endpoint: endpoint.operation.function)
def test_http_has_the_words_of_sql(endpoint: Any) -> None:
    kind: type[Operation[Any]] = endpoint.operation
    assert [field.encode_name for field in msgspec.structs.fields(endpoint.parameters)] == [*kind.__struct_fields__]
    # A query repeats a parameter for each value, so it is in the singular.
    assert all(name is None or f"{name}s" == field for field, name in kind.query_names.items())


def test_every_exception_is_of_an_operation() -> None:
    for table in (PYTHON_LACKS, PYTHON_ADDS, OPTIONS_LACK, OPTIONS_ADD):
        assert {function for function, _ in table} <= {*PUBLIC}
    assert all(field in PUBLIC[function].__struct_fields__ for function, field in SPELLED)
    assert {*NOT_IN_PYTHON, *NOT_ON_THE_COMMAND_LINE} <= {*PUBLIC}


@pytest.mark.parametrize("kind", PUBLIC.values(), ids=lambda kind: kind.function)
def test_a_word_means_one_thing(kind: type[Operation[Any]]) -> None:
    """What is of a project is in `project`, and whoever acts is in `agent` or `actor`, on every verb."""
    fields = {*kind.__struct_fields__}
    # It makes what it names; and p_limit is the length of a page everywhere.
    assert not fields & {"name"} or kind.function in ("agent_register", "token_create") or kind.function[:6] == "limit_"
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
