"""The handlers of the protocol: tools, resources and their subscriptions, over an application in this process.

Guarantees: an error of a call is the result of its tool, with code, message and hint, so a model can correct itself. A
subscriber is notified of each change that is committed after its subscription was confirmed. After a gap in the log, it
is notified of every resource that it watches.

Both versions of the protocol are supported: with a handshake (2025-11-25), where a session subscribes, and without one
(2026-07-28), where a request listens.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import anyio
import mcp_types as types
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus
from mcp.server import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.session import ServerSession
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.shared.exceptions import MCPError

from coordinator.api.gateway import Gateway
from coordinator.api.local import Local, Reply
from coordinator.errors import CoordinatorError, InvalidArgument, NotFound
from coordinator.mcp import resources, tools
from coordinator.mcp.changes import NewestChange, ResourceChanges
from coordinator.mcp.listeners import Listeners
from coordinator.mcp.tools import McpCaller
from coordinator.operations.events import Since
from coordinator.suggestion import nearest
from coordinator.version import version

__all__ = ["LISTEN", "McpHandlers"]

INSTRUCTIONS = (
    "Coordinates agents that work at once: lock a file before you edit it, and release it afterwards; read directive_inbox "
    "when you begin and from time to time; leave signals, messages and observations for others. A refused call says who "
    "is in the way and what to do."
)
SUBSCRIPTIONS = 1000  # per session or request
SUBSCRIPTION_BYTES = 64 << 10  # total size of their URIs
LISTEN = "subscriptions/listen"

Resolve = Callable[[ServerRequestContext[Any]], Awaitable[tuple[Local, McpCaller]]]
"""Returns where the calls of a request go, and who calls."""


class McpHandlers:
    """The handlers of one server.

    ``resolve`` returns the principal of a request. When the ``gateway`` ends, listening requests end. ``tasks`` outlive
    a request: with them, the server serves one session, which may subscribe.
    """

    def __init__(
        self, resolve: Resolve, gateway: Gateway, listeners: Listeners, tasks: TaskGroup | None = None
    ) -> None:
        self._resolve = resolve
        self._gateway = gateway
        self._newest = NewestChange()
        self._subscribing = anyio.Lock()
        self._listeners = listeners
        self._tasks = tasks
        self._subscribed: dict[str, str] | None = None  # the session's own spelling of each URI
        self.server: Server[Any] = Server(
            "coordinator",
            version=version(),
            instructions=INSTRUCTIONS,
            get_tool_input_schema=lambda _name: None,  # no tool has arguments in headers
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self._unsubscribe,
            on_subscriptions_listen=self._listen,
        )

    async def _list_tools(
        self, context: ServerRequestContext[Any], _parameters: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        _, caller = await self._resolve(context)
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=tool.name,
                    description=tool.description,
                    input_schema=tool.schema(caller),
                    annotations=types.ToolAnnotations(
                        read_only_hint=tool.operation.reads,
                        destructive_hint=tool.destructive,
                        idempotent_hint=tool.operation.reads or tool.repeatable,
                        open_world_hint=False,
                    ),
                )
                for tool in caller.tools()
            ]
        )

    async def _call_tool(
        self, context: ServerRequestContext[Any], parameters: types.CallToolRequestParams
    ) -> types.CallToolResult:
        local, caller = await self._resolve(context)
        tool = tools.TOOLS.get(parameters.name)
        if tool is None or not caller.may_use(tool):
            raise MCPError(types.INVALID_PARAMS, _unknown(parameters.name, [tool.name for tool in caller.tools()]))
        result = await tools.result_of(tool, parameters.arguments or {}, caller, local)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=result.text)],
            structured_content=json.loads(result.structured),
            is_error=result.is_error,
        )

    async def _list_resources(
        self, context: ServerRequestContext[Any], _parameters: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        _, caller = await self._resolve(context)
        return types.ListResourcesResult(
            resources=[
                types.Resource(
                    uri=resources.uri_of(caller.project, resource.noun),
                    name=resource.noun,
                    description=resource.title,
                    mime_type="application/json",
                )
                for resource in resources.RESOURCES
                if not resource.fields
            ]
        )

    async def _list_templates(
        self, context: ServerRequestContext[Any], _parameters: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        _, caller = await self._resolve(context)
        return types.ListResourceTemplatesResult(
            resource_templates=[
                types.ResourceTemplate(
                    uri_template=f"{resources.uri_of(caller.project, '')}{resource.template}",
                    name=resource.template,
                    description=resource.title,
                    mime_type="application/json",
                )
                for resource in resources.RESOURCES
                if resource.fields
            ]
        )

    async def _read_resource(
        self, context: ServerRequestContext[Any], parameters: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        local, caller = await self._resolve(context)
        resource, values, _ = _found(parameters.uri, caller.project)
        answer = await tools.request(resource.operation, {**values, "project": caller.project}, local)
        if not answer.ok:
            raise _failed(answer, caller)
        text = answer.body.decode(errors="replace")
        return types.ReadResourceResult(
            contents=[types.TextResourceContents(uri=parameters.uri, mime_type="application/json", text=text)]
        )

    async def _subscribe(
        self, context: ServerRequestContext[Any], parameters: types.SubscribeRequestParams
    ) -> types.EmptyResult:
        _, caller = await self._resolve(context)
        _, _, uri = _found(parameters.uri, caller.project)
        if self._tasks is None:
            raise MCPError(
                types.METHOD_NOT_FOUND, "Over HTTP, subscriptions need version 2026-07-28 of the protocol: listen."
            )
        async with self._subscribing:
            if self._subscribed is None:
                subscribed: dict[str, str] = {}
                try:
                    await self._tasks.start(self._tell, context.session, self._changes(caller, subscribed), subscribed)
                except CoordinatorError as error:
                    raise _refusal(error) from None
                self._subscribed = subscribed
        _check_size([*self._subscribed.values(), parameters.uri])
        self._subscribed[uri] = parameters.uri
        return types.EmptyResult()

    async def _unsubscribe(
        self, context: ServerRequestContext[Any], parameters: types.UnsubscribeRequestParams
    ) -> types.EmptyResult:
        _, caller = await self._resolve(context)
        if self._subscribed is not None:
            self._subscribed.pop(_found(parameters.uri, caller.project)[2], None)
        return types.EmptyResult()

    def _changes(self, caller: McpCaller, wanted: Collection[str]) -> ResourceChanges:
        """Return the changes for a caller. Raises: ``PermissionDenied``."""
        caller.principal.check_role(Since)
        caller.principal.check_projects([caller.project])
        return ResourceChanges(self._gateway, self._newest, caller.principal, caller.project, wanted)

    @staticmethod
    async def _tell(
        session: ServerSession,
        changes: ResourceChanges,
        subscribed: Mapping[str, str],
        *,
        task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None:
        async with changes.listening() as changed:
            task_status.started()
            async for uri in changed:
                if uri in subscribed:
                    await session.send_resource_updated(subscribed[uri])

    async def _listen(
        self, context: ServerRequestContext[Any], parameters: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        _, caller = await self._resolve(context)
        asked = parameters.notifications.resource_subscriptions or []
        _check_size(asked)
        written = {_found(uri, caller.project)[2]: uri for uri in asked}
        try:
            with self._listeners.one(caller.principal.caller):
                return await self._told(context, self._changes(caller, written), asked, written)
        except CoordinatorError as error:
            raise _refusal(error) from None

    async def _told(
        self,
        context: ServerRequestContext[Any],
        changes: ResourceChanges,
        asked: list[str],
        written: dict[str, str],
    ) -> types.SubscriptionsListenResult:
        """Confirm, and then notify of changes, with the URIs as ``written`` in the request."""
        meta = {SUBSCRIPTION_ID_META_KEY: context.request_id}

        async def send(notification: types.ServerNotification) -> None:
            await context.session.send_notification(notification, related_request_id=context.request_id)

        honored = types.SubscriptionFilter(resource_subscriptions=asked or None)
        confirmed = types.SubscriptionsAcknowledgedNotificationParams(notifications=honored, _meta=meta)
        async with changes.listening() as changed:
            await send(types.SubscriptionsAcknowledgedNotification(params=confirmed))
            async for uri in changed:
                updated = types.ResourceUpdatedNotificationParams(uri=written[uri], _meta=meta)
                await send(types.ResourceUpdatedNotification(params=updated))
        return types.SubscriptionsListenResult(_meta=meta)


def _failed(answer: Reply, caller: McpCaller) -> MCPError:
    problem = tools.problem_of(answer, caller)
    text = tools.sentence(problem["code"], problem["detail"], problem.get("hint"))
    return MCPError(types.INVALID_PARAMS if answer.status < 500 else types.INTERNAL_ERROR, text, problem)


def _found(uri: str, project: str) -> tuple[resources.McpResource, dict[str, str], str]:
    try:
        return resources.found(uri, project)
    except NotFound as error:
        raise _refusal(error) from None


def _check_size(uris: list[str]) -> None:
    """Limit the number and size of subscriptions.

    Raises: ``MCPError``.
    """
    size = sum(map(len, uris))
    if len(uris) > SUBSCRIPTIONS or size > SUBSCRIPTION_BYTES:
        raise _refusal(
            InvalidArgument(
                f"{len(uris)} resources with {size} characters of URIs are too many to listen to",
                hint=f"At most {SUBSCRIPTIONS}, with {SUBSCRIPTION_BYTES} characters; listen to a whole list instead.",
                code="ZC102",
            )
        )


def _refusal(error: CoordinatorError) -> MCPError:
    """Return a coordinator error as an error of the protocol."""
    code = types.INVALID_PARAMS if error.http_status < 500 else types.INTERNAL_ERROR
    data = {"code": error.code, "detail": error.message, "hint": error.hint}
    return MCPError(code, tools.sentence(error.code, error.message, error.hint), data)


def _unknown(name: str, known: list[str]) -> str:
    close = nearest(name, known)
    return f'there is no tool "{name[:100]}".' + (f" Did you mean {close}?" if close else "")
