"""Tools: the operations that a model needs, at most 30, because models choose less well among more.

The name, description and schema of a tool come from its operation. The schema omits what a model should not decide: the
project, the acting agent, and what only programs use.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any

import anyio
import msgspec

from coordinator.api.endpoint import Endpoint, decode_hook, endpoint_of
from coordinator.api.local import Local, Reply
from coordinator.api.openapi import schema_hook
from coordinator.api.principal import Principal
from coordinator.errors import CoordinatorError, InvalidArgument
from coordinator.mcp.hints import for_model
from coordinator.mcp.words import WORDS
from coordinator.model import duration
from coordinator.model.catalogue import LIMITS
from coordinator.model.fields import fields_of
from coordinator.model.operation import Operation
from coordinator.model.token import Role
from coordinator.operations import (
    agents,
    directives,
    documents,
    job_history,
    job_waits,
    jobs,
    knowledge,
    locks,
    memories,
    messages,
    observations,
    signals,
)
from coordinator.suggestion import nearest

__all__ = [
    "TOOLS",
    "WAITING",
    "McpCaller",
    "Tool",
    "ToolResult",
    "call",
    "problem_of",
    "request",
    "result_of",
    "sentence",
]

HIDDEN = frozenset({"actor", "embedding", "request_id", "process", "unreserved", "within", "owner", "bookmarks"})
ROWS = 50  # rows of a list, unless the call asks for more
WAIT_S = 60.0  # per request; a longer wait takes several requests


class Tool(msgspec.Struct, frozen=True):
    """An operation as a tool. ``destructive``: it removes something that others may rely on. ``repeatable``: a second call changes nothing more."""

    operation: type[Operation[Any]]
    destructive: bool = False
    repeatable: bool = False

    @property
    def name(self) -> str:
        """The name of the tool."""
        return self.operation.function

    @property
    def endpoint(self) -> Endpoint:
        """How the operation is called over HTTP."""
        return endpoint_of(self.operation)

    @property
    def description(self) -> str:
        """The description for a model."""
        text = WORDS.get(self.name) or inspect.cleandoc(self.operation.__doc__ or "").replace("``", "`")
        return text.replace("Raises: `", "Errors: `").replace("in `detail`", "in `facts`")

    def schema(self, caller: McpCaller) -> dict[str, Any]:
        """Return the JSON schema of the arguments."""
        shown = _schema(self.operation)
        hidden = HIDDEN | caller.given(self.operation).keys()
        properties = {name: _brief(field) for name, field in shown["properties"].items() if name not in hidden}
        required = [name for name in shown.get("required", ()) if name in properties]
        if self.operation.page_by:
            properties["limit"] = {"type": "integer", "minimum": 1, "maximum": LIMITS["page"], "default": ROWS}
            properties["after"] = {"type": "string", "description": "The cursor of the previous page."}
        return {**shown, "properties": properties, "required": required}

    def takes(self, caller: McpCaller) -> str:
        """Return the hint for malformed arguments, which lists the arguments."""
        schema = self.schema(caller)
        names = [f"{name} (required)" if name in schema["required"] else name for name in schema["properties"]]
        return f"Arguments: {', '.join(names) or 'none'}."


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(signals.Get),
        Tool(signals.List),
        Tool(signals.Set, repeatable=True),
        Tool(signals.Delete, destructive=True, repeatable=True),
        Tool(locks.List),
        Tool(locks.Show),
        Tool(locks.Acquire, repeatable=True),
        Tool(locks.Release, repeatable=True),
        Tool(locks.Break, destructive=True),
        Tool(agents.List),
        Tool(directives.Inbox),
        Tool(directives.Acknowledge, repeatable=True),
        Tool(directives.Send),
        Tool(messages.Append),
        Tool(messages.Window),
        Tool(observations.Append),
        Tool(documents.Get),
        Tool(documents.List),
        Tool(documents.Put, repeatable=True),
        Tool(documents.Item, repeatable=True),
        Tool(documents.Delete, destructive=True, repeatable=True),
        Tool(memories.Record),
        Tool(memories.Search),
        Tool(knowledge.Put, repeatable=True),
        Tool(knowledge.Search),
        Tool(jobs.Enqueue),
        Tool(job_history.Show),
        Tool(job_history.Why),
        Tool(jobs.Cancel, destructive=True, repeatable=True),
        Tool(job_waits.Answer),
    )
}

WAITING = (locks.Acquire.function,)  # tools whose call may take long


class McpCaller:
    """The caller of tools: a project, and the agent on whose behalf they run, if it is known. ``role`` is the role for which tools are offered."""

    def __init__(self, project: str, agent: str | None, role: Role, principal: Principal | None = None) -> None:
        self.principal = principal or Principal()
        self.project = project
        self.agent = agent
        self.role = role

    def given(self, operation: type[Operation[Any]]) -> dict[str, Any]:
        """Return the arguments that the caller does not choose."""
        given: dict[str, Any] = {}
        if operation.scope_field == "project":
            given["project"] = self.project
        if self.agent is not None and _needs_agent(operation):
            given["agent"] = self.agent
        return given

    def tools(self) -> list[Tool]:
        """Return the tools that the role may use."""
        return [tool for tool in TOOLS.values() if self.may_use(tool)]

    def may_use(self, tool: Tool) -> bool:
        """Return whether the role may use a tool."""
        return (tool.operation.least_role() or Role.admin) <= self.role


class ToolResult(msgspec.Struct, frozen=True):
    """The result of a tool, as text and as JSON. An error is a result as well, so that a model can correct itself."""

    text: str
    structured: bytes
    is_error: bool = False


async def result_of(tool: Tool, arguments: Mapping[str, Any], caller: McpCaller, local: Local) -> ToolResult:
    """Call a tool, and return the result."""
    try:
        answer = await call(tool, arguments, caller, local)
    except CoordinatorError as refusal:
        code, message, hint, facts = refusal.code, refusal.message, refusal.hint, refusal.detail
    else:
        if answer.ok:
            return ToolResult(answer.body.decode(errors="replace"), answer.body)
        problem = problem_of(answer, caller)
        code, message, hint, facts = problem["code"], problem["detail"], problem.get("hint"), problem.get("facts")
    error = {"code": code, "message": message, "hint": hint, "facts": facts}
    shown = {name: value for name, value in error.items() if value is not None}
    return ToolResult(sentence(code, message, hint), json.dumps({"error": shown}).encode(), is_error=True)


def problem_of(answer: Reply, caller: McpCaller) -> dict[str, Any]:
    """Return the problem in a response; its hint refers to the tools of the caller."""
    problem: dict[str, Any] = json.loads(answer.body)
    if hint := problem.get("hint"):
        problem["hint"] = for_model(hint, {tool.name for tool in caller.tools()})
    return problem


def sentence(code: str, message: str, hint: str | None) -> str:
    """Return an error as a single text."""
    return f"{code}: {message}." + (f" {hint}" if hint else "")


async def call(tool: Tool, arguments: Mapping[str, Any], caller: McpCaller, local: Local) -> Reply:
    """Call a tool. The result is that of the HTTP request, even if it is an error.

    Raises: ``InvalidArgument`` for arguments that do not match the tool.
    """
    given = caller.given(tool.operation)
    taken = _names(tool.operation)
    for name in arguments:
        if name not in taken or name in given:
            close = nearest(name, tool.schema(caller)["properties"])
            raise InvalidArgument(
                f'{tool.name} takes no argument "{name[:100]}"',
                hint=(f"Did you mean {close}? " if close else "") + tool.takes(caller),
            )
    values = {**arguments, **given}
    try:
        _check(tool, values)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid arguments: {error}", hint=tool.takes(caller)) from None
    if tool.operation.page_by:
        values.setdefault("limit", ROWS)
    if tool.operation is locks.Acquire:
        return await _acquire(values, local)
    return await request(tool.operation, values, local)


def _check(tool: Tool, values: Mapping[str, Any]) -> None:
    """Check the types of all arguments before making the request, whose error would refer to its own parts.

    Raises: ``msgspec.ValidationError``.
    """
    reads = tool.endpoint.method == "GET"
    checked = dict(values)
    if tool.operation.page_by:
        msgspec.convert(checked.pop("after", ""), str | None)
    if reads:  # null means omitted
        checked = {name: value for name, value in checked.items() if value is not None}
    try:
        msgspec.json.decode(_json(checked), type=tool.endpoint.parameters, strict=not reads, dec_hook=decode_hook)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeError):  # the request itself reports what is wrong
        return


async def request(
    operation: type[Operation[Any]], values: Mapping[str, Any], local: Local, wait_s: float = 0.0
) -> Reply:
    """Send the request of an operation with these values."""
    endpoint = endpoint_of(operation)
    waits = {"wait": f"{wait_s:.3f}s"} if wait_s else {}
    if endpoint.method == "GET":
        path = endpoint.path
        if endpoint.parameter is not None:
            path = path.partition("{")[0] + str(values.get(endpoint.parameter, ""))
        query = {
            name: _text(value) for name, value in values.items() if name != endpoint.parameter and value is not None
        }
        return await local.get(path, {**query, **waits})
    return await local.post(endpoint.path, _json(values).encode(), waits)


def _text(value: Any) -> str | list[str]:
    """Return a value in the form that a query needs."""
    if isinstance(value, list):
        return [item if isinstance(item, str) else _json(item) for item in value]
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    """Encode a value that was parsed from JSON.

    Raises: ``InvalidArgument`` for a number that was too large to be parsed, and for a value that is nested too deeply.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        raise InvalidArgument(
            "an argument has a number out of range", hint="Give numbers up to 1e308, or text.", code="ZC104"
        ) from None
    except RecursionError:
        raise InvalidArgument(
            "an argument is nested too deeply", hint="Nest JSON at most 64 levels deep.", code="ZC104"
        ) from None


async def _acquire(values: Mapping[str, Any], local: Local) -> Reply:
    """Acquire locks, and wait for them up to ``wait``. A call that is cancelled leaves the queue."""
    with anyio.CancelScope(shield=True):  # it may already wait at the server before its ticket is known here
        answer = await request(locks.Acquire, values, local)
    if not answer.ok:
        return answer
    (grant, *_) = json.loads(answer.body)["items"]
    if grant["granted"]:
        return answer
    place = {"project": values.get("project"), "ticket": grant["ticket"], "agent": values["agent"]}
    place = {name: value for name, value in place.items() if value is not None}
    until = anyio.current_time() + _seconds(values["wait"])
    try:
        while True:
            left_s = max(until - anyio.current_time(), 0.05)
            answer = await request(locks.Poll, place, local, min(left_s, WAIT_S))
            if not answer.ok or json.loads(answer.body)["items"][0]["granted"]:
                return answer
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await request(locks.Cancel, place, local)
        raise


def _seconds(value: Any) -> float:
    read: timedelta = duration.read(value)
    return read.total_seconds()


def _brief(field: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a field without null, which means omitted, and with durations in readable form."""
    left = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
    brief = (
        {name: value for name, value in field.items() if name != "anyOf"} | left[0] if len(left) == 1 else dict(field)
    )
    match brief.get("default", ...):
        case None:
            del brief["default"]
        case str() as text if text.startswith("P"):
            brief["default"] = duration.written(duration.read(text)) or "0s"
    return brief


@cache
def _needs_agent(operation: type[Operation[Any]]) -> bool:
    """Return whether an operation needs an agent."""
    return any(field.name == "agent" and field.required for field in fields_of(operation))


@cache
def _names(operation: type[Operation[Any]]) -> frozenset[str]:
    """Return the arguments of a tool, including those that a caller may not choose."""
    paging = ("limit", "after") if operation.page_by else ()
    return frozenset((*_schema(operation)["properties"], *paging)) - HIDDEN


@cache
def _schema(operation: type[Operation[Any]]) -> dict[str, Any]:
    """Return the self-contained schema of an operation's parameters."""
    shown = msgspec.json.schema(endpoint_of(operation).parameters, schema_hook=schema_hook)
    (name,) = [shown["$ref"].rpartition("/")[2]]
    schema: dict[str, Any] = dict(shown["$defs"].pop(name))
    schema.pop("title", None)
    schema.pop("description", None)
    return {**schema, **({"$defs": shown["$defs"]} if shown["$defs"] else {})}
