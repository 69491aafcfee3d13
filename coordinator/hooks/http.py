"""``POST /v1/hooks/<dialect>`` of a daemon or sidecar, for tools that can send their hooks over HTTP instead of starting processes.

The body is the tool's payload, and the response is what its hook would print. The token determines the caller.
``?project=`` sets the project; by default, the repository determines it. ``?wait=``, ``?ttl=``, ``?hold=until-commit``,
``?shared_reads=true``, ``?unreachable=`` and ``?worktrees=shared`` are the options of ``coordinator hook run``.

Contents of files are compared only for callers on this machine whose directory exists here. For others, leases work in
the same way, but a change is noticed only if the changing session recorded it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

import anyio
import msgspec
import structlog
from anyio import to_thread

from coordinator.api.believed import Believed
from coordinator.api.forwarded import FORWARDING
from coordinator.api.principal import Principal
from coordinator.api.problems import MalformedRequest
from coordinator.api.request import Request
from coordinator.api.response import Response
from coordinator.api.routes import Handler
from coordinator.errors import CoordinatorError, DatabaseUnavailable, InvalidArgument
from coordinator.hooks.content import UNKNOWN, fingerprint_within
from coordinator.hooks.decide import HookOptions, Unreachable, decide, hashes, of_tool, unanswered
from coordinator.hooks.dialects import NAMES, PAYLOAD_BYTES, decode, load
from coordinator.hooks.known_places import Known, KnownPlaces
from coordinator.hooks.place import Place
from coordinator.hooks.shell import DEFAULTS
from coordinator.model import duration
from coordinator.model.hint import DEFAULT_PROJECT
from coordinator.model.operation import Json, Operation
from coordinator.operations import agents, files, locks
from coordinator.operations.executor import Runner
from coordinator.telemetry import metrics

__all__ = ["hook_handlers"]

R = TypeVar("R")

OPTIONS = ("project", "wait", "ttl", "hold", "shared_reads", "unreachable", "worktrees")
WAIT_MAX = timedelta(minutes=10)
SMALL_BYTES = 64 << 10  # of files that are read within the event loop, together
FEW = 20  # number of files that are resolved within the event loop
HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,200}")
HEARTBEAT_S = 3.0  # after a call of a session, no other call that would only be its heartbeat is made for this time
SHORT_TTL = timedelta(seconds=60)  # not for sessions with a shorter TTL
COPIES = 8  # copies of a payload in memory, as bytes and as Python objects

log = structlog.get_logger()


# The metadata of the last heartbeats, by caller, project, session and TTL.
_Heard = Believed[tuple[str, str, str, timedelta], dict[str, Json]]


class _Permitted:
    """Runs operations with the rights of a principal."""

    def __init__(self, principal: Principal, inner: Runner, heard: _Heard) -> None:
        self._principal = principal
        self._inner = inner
        self._heard = heard

    async def run(self, operation: Operation[R]) -> R:
        # If the caller disconnects, it leaves the queue. A scope takes 5 µs, so only this call has one.
        with anyio.CancelScope(shield=True) if isinstance(operation, locks.Cancel) else nullcontext():
            began = time.monotonic()
            result = await self._inner.run(await self._principal.permit(operation))
        if isinstance(operation, agents.Join | files.Edit | files.Record) and operation.ttl >= SHORT_TTL:
            name = operation.name if isinstance(operation, agents.Join) else operation.agent
            heartbeat = (self._principal.caller, operation.project, name, operation.ttl)
            self._heard.keep(heartbeat, operation.metadata or {}, began)
        return result

    async def heartbeat(self, join: agents.Join) -> None:
        """Make a call that is only a heartbeat, unless a call of the session has just been one."""
        heard = self._heard.get((self._principal.caller, join.project, join.name, join.ttl))
        if heard is None or not (join.metadata or {}).items() <= heard.items():
            await self.run(join)


def hook_handlers(executor: Runner, stop: anyio.Event) -> dict[str, Mapping[str, Handler]]:
    """Return the handler of each dialect, by path and method. Once ``stop`` is set, no call waits for a file."""
    places = KnownPlaces()
    heard: _Heard = Believed(HEARTBEAT_S)

    @lru_cache(200)  # a tool always sends the same options
    def options_of(name: str, query: frozenset[tuple[str, str]]) -> HookOptions:
        return of_tool(_options(dict(query), pause), load(name))

    async def pause(seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await stop.wait()
        return not stop.is_set()

    def handler(name: str) -> Handler:
        async def post(request: Request) -> Response:
            query = dict(request.query())
            options = options_of(name, frozenset((key, value) for key, value in query.items() if key != "project"))
            return await _respond(name, request, query, options, _Permitted(request.principal, executor, heard), places)

        return post

    return {f"/v1/hooks/{name}": {"POST": handler(name)} for name in NAMES}


async def _respond(  # noqa: PLR0917
    name: str,
    request: Request,
    query: Mapping[str, str],
    options: HookOptions,
    executor: _Permitted,
    places: KnownPlaces,
) -> Response:
    payload = decode(await request.body_within(PAYLOAD_BYTES, COPIES, "that of the payload of a hook"))
    dialect = load(name)
    event = dialect.read(payload)
    project = request.principal.project or query.get("project")
    try:
        known = await _known((event.cwd, project, query.get("worktrees")), places) if _near(request) else None
        options = msgspec.structs.replace(
            options,
            sees_files=known is not None,
            rules=DEFAULTS if known is None else known.rules,
            command=partial(_command, request),
            heartbeat=executor.heartbeat,
        )
        place = known.place if known is not None else _far(event.cwd, project)
        verdict = await decide(event, place, executor, options)
    except CoordinatorError as error:
        if not isinstance(error, DatabaseUnavailable):
            log.info("hook.refused", dialect=name, code=error.code, error=error.message)
        verdict = unanswered(event, options, f"{error.message}.")
        metrics.HOOK_VERDICTS.labels(name, "unanswered").inc()
    else:
        metrics.HOOK_VERDICTS.labels(name, verdict.decision or "none").inc()
    return Response(200, dialect.answer(event, verdict).stdout.encode() or b"{}")


async def _known(where: tuple[str, str | None, str | None], places: KnownPlaces) -> Known | None:
    return places.get(*where) or await to_thread.run_sync(places.find, *where)


def _far(cwd: str, project: str | None) -> Place:
    """Return the place of a directory on another machine, derived only from the texts of paths."""
    root = cwd or os.sep
    return Place(project=project or DEFAULT_PROJECT, cwd=root, root=root)


async def _hashes(paths: Iterable[str | None]) -> list[str]:
    """Read files; on a thread if one is large, since a thread costs more than reading a small file."""
    wanted = [*paths]
    small_bytes = SMALL_BYTES // max(len(wanted), 1)
    found = []
    for path in wanted:
        content = UNKNOWN if path is None else fingerprint_within(path, small_bytes)
        if content is None:
            return await to_thread.run_sync(hashes, wanted)
        found.append(content)
    return found


async def _look(count: int, work: Callable[[], Any]) -> Any:
    """Resolve the names of files; many on a thread, because each takes system calls."""
    return work() if count <= FEW else await to_thread.run_sync(work)


def _near(request: Request) -> bool:
    """Return whether the caller is on this machine. A proxy on this machine says nothing about its clients."""
    if any(name in FORWARDING for name, _ in request.scope["headers"]):
        return False
    client = request.client
    return client is None or _is_here(client.host)  # None: a Unix socket


@lru_cache(1000)
def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _command(request: Request) -> str:
    """Return the start of a command line for the agent, with the address at which its tool reaches this process."""
    host = request.headers.get("host", "")
    if request.client is None or not HOST.fullmatch(host):
        return "coordinator"
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    return f"coordinator --url {shlex.quote(('https://' if secure else 'http://') + host)}"


def _options(query: Mapping[str, str], pause: Callable[[float], Awaitable[bool]]) -> HookOptions:
    """Read the options of a query.

    Raises: ``MalformedRequest``, ``InvalidArgument``.
    """
    if unknown := query.keys() - {*OPTIONS}:
        raise MalformedRequest(f"unknown parameter {min(unknown)!r:.100}", hint=f"Known are {', '.join(OPTIONS)}.")
    wait = _duration(query, "wait") or timedelta(0)
    if wait > WAIT_MAX:
        raise InvalidArgument(f"a wait of {duration.written(wait)} is out of range", hint="The maximum is 10 minutes.")
    for name, values in (
        ("hold", ("turn", "until-commit")),
        ("shared_reads", ("true", "false")),
        ("unreachable", ("ask", "allow", "deny")),
        ("worktrees", ("separate", "shared")),
    ):
        if query.get(name, values[0]) not in values:
            raise InvalidArgument(f"invalid {name} {query[name]!r:.100}", hint=f"It is one of {', '.join(values)}.")
    options = HookOptions(
        pause=pause,
        hashes=_hashes,
        look=_look,
        wait=wait,
        until_commit=query.get("hold") == "until-commit",
        shared_reads=query.get("shared_reads") == "true",
        unreachable=cast("Unreachable", query.get("unreachable", "ask")),
    )
    ttl = _duration(query, "ttl")
    return options if ttl is None else msgspec.structs.replace(options, ttl=ttl)


def _duration(query: Mapping[str, str], name: str) -> timedelta | None:
    if name not in query:
        return None
    try:
        return duration.parse(query[name])
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"{name}: {error}", hint=duration.HINT) from None
