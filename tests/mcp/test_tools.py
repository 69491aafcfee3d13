"""The table of tools: what a model is offered, and what it is spared."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import anyio
import pytest

from coordinator import errors, operations
from coordinator.api.local import Local, Reply
from coordinator.mcp.tools import HIDDEN, TOOLS, McpCaller, Tool, call, result_of
from coordinator.model.token import Role
from tests.waiting import DEADLINE_S

OWN = McpCaller("shop", "coder-1", Role.admin)
NAMELESS = McpCaller("shop", None, Role.admin)


def test_there_are_at_most_thirty_tools_and_their_descriptions_are_short() -> None:
    assert len(TOOLS) <= 30
    shown = [{"name": tool.name, "description": tool.description, **tool.schema(OWN)} for tool in TOOLS.values()]
    assert len(json.dumps(shown)) < 30_000, "a model reads all of it before it begins"


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name)
def test_a_role_is_offered_the_tools_that_it_may_use(role: Role) -> None:
    offered = {tool.name for tool in McpCaller("shop", None, role).tools()}
    assert offered == {name for name, tool in TOOLS.items() if (tool.operation.least_role() or Role.admin) <= role}
    assert ("signal_set" in offered) == (role >= Role.agent)
    assert ("directive_send" in offered) == (role >= Role.manager)


@pytest.mark.parametrize("tool", TOOLS.values(), ids=lambda tool: tool.name)
def test_a_tool_takes_nothing_that_its_caller_knows_already(tool: Tool) -> None:
    schema = tool.schema(OWN)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert {"project", "actor", "embedding", "request_id", "process"}.isdisjoint(schema["properties"])
    assert set(schema["required"]) <= set(schema["properties"])
    assert "null" not in json.dumps(schema), "what may be null may be left out"
    taken = {field for field in tool.operation.__struct_fields__ if field == "agent"}
    assert "agent" not in schema["required"]
    assert taken <= set(tool.schema(NAMELESS)["properties"]), "over HTTP an agent says who it is"


@pytest.mark.parametrize("tool", TOOLS.values(), ids=lambda tool: tool.name)
def test_a_tool_that_reads_is_not_destructive(tool: Tool) -> None:
    assert not (tool.operation.reads and tool.destructive)
    assert tool.description
    assert "``" not in tool.description


OFFERED = frozenset(TOOLS)
FUNCTIONS = {operation.function for operation in operations.every()}
NAMES = re.compile(r"[a-z]+(?:_[a-z]+)+")
ELSEWHERE = re.compile(
    r"/v1|/schema|\bquery\b|\bbody:|\bdetail\b|\bembeddings?\b|\brequest_id\b|idempotency", re.IGNORECASE
)


@pytest.mark.parametrize("caller", [OWN, NAMELESS], ids=["of an agent", "of nobody"])
@pytest.mark.parametrize("tool", TOOLS.values(), ids=lambda tool: tool.name)
def test_the_description_of_a_tool_names_only_what_it_offers(tool: Tool, caller: McpCaller) -> None:
    """Its description and those of its arguments name arguments, tools, errors, and what the result of a refused call has."""
    schema = tool.schema(caller)
    known = {*schema["properties"], *OFFERED, *errors.__all__, "facts", "fencing_token", "job_types"}
    said = tool.description + json.dumps([field.get("description") for field in schema["properties"].values()])
    marked = {word for word in re.findall(r"`([^`]*)`", said) if re.fullmatch(r"[A-Za-z_.]+", word)}
    assert marked <= known, f"{tool.name} takes none of {marked - known}"
    assert set(NAMES.findall(said)) <= known
    assert not ELSEWHERE.search(said)


WRONG: tuple[Any, ...] = (17, "text", [["list"]], {"an": "object"}, True, None)


@pytest.mark.parametrize("caller", [OWN, NAMELESS], ids=["of an agent", "of nobody"])
@pytest.mark.parametrize("tool", TOOLS.values(), ids=lambda tool: tool.name)
async def test_arguments_of_another_shape_are_refused_with_the_arguments_that_there_are(
    tool: Tool, caller: McpCaller
) -> None:
    properties = tool.schema(caller)["properties"]
    right = {name: [name] if field.get("type") == "array" else "x" for name, field in properties.items()}
    calls = [{"nonsense": 1}, *({name: value} for name in HIDDEN - properties.keys() for value in ("x",))]
    calls += [{**right, name: value} for name in properties for value in WRONG]
    sent: list[Any] = []

    class Nobody:
        """Answers nothing: only a call of the right shape comes this far."""

        async def get(self, _path: str, query: Any) -> Reply:
            return self._taken(query)

        async def post(self, _path: str, body: bytes, _query: object = None) -> Reply:
            return self._taken(json.loads(body))

        def _taken(self, values: Any) -> Reply:
            sent.append(values)
            return Reply(200, b'{"items": [{"granted": true}]}')

    for arguments in calls:
        result = await result_of(tool, arguments, caller, cast("Local", Nobody()))
        if not result.is_error:
            continue
        error = json.loads(result.structured)["error"]
        assert error["code"] == "ZC100"
        listed = error["hint"].partition("Arguments: ")[2].rstrip(".").replace(" (required)", "").split(", ")
        assert set(listed) == {*properties} or (listed == ["none"] and not properties), error
        said = error["message"].partition(f'argument "{next(iter(arguments))}"')[2] + error["hint"]
        assert not ELSEWHERE.search(said), said
    assert len(sent) < len(calls)


async def test_a_call_that_is_cancelled_before_its_ticket_is_known_leaves_the_queue() -> None:
    asked, answered = anyio.Event(), anyio.Event()
    cancelled: list[Any] = []

    class Queue:
        """Gives a ticket at once, and says so late."""

        async def post(self, path: str, body: bytes, _query: object = None) -> Reply:
            if path == "/v1/locks/acquire":
                asked.set()
                await answered.wait()
            elif path == "/v1/locks/cancel":
                cancelled.append(json.loads(body)["ticket"])
            else:
                await anyio.sleep_forever()
            return Reply(200, b'{"items": [{"granted": false, "ticket": 7}]}')

    arguments = {"resources": ["a"], "wait": "1h"}
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, TOOLS["lock_acquire"], arguments, OWN, cast("Local", Queue()))
            await asked.wait()
            tasks.cancel_scope.cancel()
            answered.set()
    assert cancelled == [7]
