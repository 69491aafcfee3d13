"""The sidecar as a program: it builds everything long-lived, and shuts it down in order.

It serves the daemon's HTTP API to one agent, without relay and loops. It registers the agent, sends its heartbeats,
renews the locks that the agent acquires through it, reconciles the jobs that the agent claims, and reports all of this
(``GET /v1/sidecar``). It opens at most three connections to PostgreSQL: two for calls, and one that listens and holds
the liveness lock, so the agent of a killed sidecar is reaped within 2 seconds. (A fourth connection finds out for a
moment what blocks a waiting call.) Through a daemon (``--upstream``), it opens none, and the agent is reaped after its
TTL.

Shutdown, on SIGTERM, SIGINT, or when the agent is gone: ``/readyz`` returns 503; HTTP ends streams and finishes
requests in progress; the agent is deregistered, which releases everything that it held; then the connections close.

On failure: at its start, the sidecar waits up to ``connect_limit_s`` for the database or daemon, and ends at once if the
daemon refuses its token. Later, while the other side does not respond, the agent and its locks are UNKNOWN; connections are
restored automatically. An agent that was reaped is LOST permanently, since others may now hold what it held. The sidecar
never registers it again; restart the sidecar.

What it deliberately does not do: listen where other machines can reach it. Anyone on this machine acts with the
privileges of the sidecar's database role or token, unless ``access`` is ``tokens``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from importlib.util import find_spec
from uuid import uuid4

import anyio
import structlog
from anyio import to_thread
from msgspec.structs import replace

from coordinator.api.access import Access
from coordinator.api.app import Application, create_app
from coordinator.api.gateway import Gateway
from coordinator.api.local import Local
from coordinator.api.origin import origin_middleware, origins_of
from coordinator.api.server import serving, url_of
from coordinator.api.tokens import TOKEN_CHANNEL
from coordinator.client.http import HttpExecutor
from coordinator.client.lease import LeaseState
from coordinator.client.presence import Presence
from coordinator.config import SETTINGS, Config
from coordinator.db.database import Database, connect_within
from coordinator.errors import ConfigurationError, CoordinatorError, DatabaseUnavailable
from coordinator.hooks.http import hook_handlers
from coordinator.lifetime import Lifetime, run_until_shutdown
from coordinator.mcp.mount import Mount
from coordinator.model.address import is_gateway
from coordinator.model.call_origin import CallOrigin, coming_from
from coordinator.model.readiness import Readiness
from coordinator.model.token import Role
from coordinator.objects import ObjectStore
from coordinator.operations import agents
from coordinator.operations.executor import Source
from coordinator.operations.liveness import Liveness
from coordinator.sidecar.agent_process import AgentProcess
from coordinator.sidecar.backend import Backend
from coordinator.sidecar.listeners import listeners
from coordinator.sidecar.pod import agent_name, metadata
from coordinator.sidecar.routes import AgentReport, SidecarReport, routes
from coordinator.sidecar.upstream import Upstream
from coordinator.telemetry import cause, tracing
from coordinator.version import version

__all__ = ["serve", "serve_mcp"]

READY_WITHIN_S = 5.0  # since the last news of the log
NOT_READY = {LeaseState.UNKNOWN: "no answer from the database", LeaseState.LOST: "the agent was reaped"}

log = structlog.get_logger()

_Front = Callable[[Application, Presence, Gateway, anyio.Event], AbstractAsyncContextManager[None]]


async def serve(
    config: Config, ttl: timedelta, pid: int | None, job_types: Sequence[str] = (), labels: Sequence[str] = ()
) -> None:
    """Run the sidecar until SIGTERM, SIGINT, or the end of the agent's process, known by ``pid`` or an attachment.

    Raises: ``ConfigurationError``; ``DatabaseUnavailable`` (no answer within ``connect_limit_s``), or how the daemon
    refused; what ``agents.Register`` raises.
    """
    registration = _registration(config, agent_name(config), ttl, job_types, labels)
    origins_of(config)  # invalid settings are refused before anything starts

    with listeners(config.listen, config.socket) as sockets:

        @asynccontextmanager
        async def http(app: Application, presence: Presence, *_: object) -> AsyncIterator[None]:
            async with serving(app, sockets[0], config, also=sockets[1:]):
                addresses = [url_of(listener) for listener in sockets]
                log.info("sidecar.started", version=version(), pid=os.getpid(), http=addresses, agent=str(presence.id))
                yield

        await _run("sidecar", config, registration, AgentProcess(pid), http)


def _unstarted(source: Source, limit_s: float) -> CoordinatorError:
    """Return why there is no connection after the limit: the daemon's last response."""
    trouble = source.trouble if isinstance(source, Upstream) else None
    return trouble or DatabaseUnavailable(
        f"no answer within {limit_s:g} seconds", hint="Is the address correct, and does a server run there?"
    )


async def serve_mcp(config: Config, ttl: timedelta, role: Role) -> None:
    """Serve the Model Context Protocol on standard input and output, for one agent, until the input ends.

    ``role`` is the highest one whose tools are offered.

    Raises: as ``serve``; ``ConfigurationError`` without the extra.
    """
    if find_spec("mcp") is None:
        raise ConfigurationError(
            "the Model Context Protocol is not installed", hint='Install the extra: pip install "coordinatord[mcp]"'
        )
    from coordinator.mcp.stdio import serving_stdio  # noqa: PLC0415 - an extra
    from coordinator.mcp.tools import McpCaller  # noqa: PLC0415

    name = config.agent or config.pod_name or f"mcp-{uuid4().hex[:8]}"
    registration = _registration(config, name, ttl, (), ())
    config = replace(config, access="open")  # the process at the other end of the pipe is the agent

    @asynccontextmanager
    async def stdio(app: Application, presence: Presence, gateway: Gateway, stop: anyio.Event) -> AsyncIterator[None]:
        caller = McpCaller(config.project, presence.name, role)
        async with serving_stdio(Local(app), caller, gateway, stop, _lowered(config).mcp_listeners):
            log.info("mcp.started", version=version(), pid=os.getpid(), agent=str(presence.id), name=presence.name)
            yield

    await _run("mcp", config, registration, AgentProcess(None), stdio)


def _registration(
    config: Config, name: str, ttl: timedelta, job_types: Sequence[str], labels: Sequence[str]
) -> agents.Register:
    return agents.Register(
        project=config.project,
        name=name,
        role=config.role,
        job_types=list(job_types),
        labels=list(labels),
        metadata=metadata(config),
        ttl=ttl,
    )


@asynccontextmanager
async def _source(config: Config) -> AsyncIterator[Source]:
    """Open the database, or the connection to a daemon."""
    url = config.database_url
    if url is None:
        raise ConfigurationError("no database is configured", hint="Pass --url postgresql://… or --upstream https://…")
    if is_gateway(url):
        if config.access == "tokens":
            raise ConfigurationError(
                "through a daemon the sidecar cannot check tokens",
                hint="Omit access: the sidecar is open on this machine.",
            )
        async with HttpExecutor.open(url, config) as executor:
            yield Upstream(executor, config.project)
        return
    ObjectStore(config).check()
    first = await connect_within(config.connect_limit_s, url, call_timeout_s=config.call_timeout_s)
    first.terminate()
    async with Database.open(url, _lowered(config), raw_json=True) as database:
        yield database


async def _run(name: str, config: Config, registration: agents.Register, process: AgentProcess, front: _Front) -> None:
    """Run a program that is in front of the API of one agent, until its shutdown."""

    async def run(lifetime: Lifetime) -> None:
        with coming_from(CallOrigin(process=name)):
            async with _source(config) as source:
                await _serve(config, source, registration, process, front, lifetime)

    if config.tracing == "on":
        tracing.start(f"coordinator-{name}")
    try:
        await run_until_shutdown(name, run)
    finally:
        await to_thread.run_sync(tracing.stop)  # send the remaining spans


async def _serve(  # noqa: PLR0917
    config: Config,
    source: Source,
    registration: agents.Register,
    process: AgentProcess,
    front: _Front,
    lifetime: Lifetime,
) -> None:
    backend = Backend(source)
    session = backend.session()
    liveness = None if isinstance(source, Upstream) else Liveness(session, "sidecar")
    config = _lowered(config)
    if is_gateway(config.database_url or ""):
        config = replace(config, webhook_networks="all")  # the daemon checks addresses by its own setting
    gateway = Gateway(backend, config)
    access = Access(session if config.access == "tokens" else None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gateway.run_forever)
        if config.access == "tokens":
            tasks.start_soon(access.run_forever, session.wake(TOKEN_CHANNEL))
        with anyio.move_on_after(config.connect_limit_s):
            await gateway.started.wait()
        if not gateway.started.is_set():
            tasks.cancel_scope.cancel()
            raise _unstarted(source, config.connect_limit_s)
        lifetime.started()
        presence = await Presence.register(registration, liveness, source)
        if liveness is not None:
            backend.process = lambda: liveness.process
        cause.identify(project=registration.project, agent=presence.name)
        backend.serve(presence, registration.project)
        tasks.start_soon(presence.keep)
        tasks.start_soon(backend.book.run_forever)
        tasks.start_soon(backend.jobs.run_forever, registration.ttl.total_seconds())

        if isinstance(source, Database):
            tasks.start_soon(source.stay_open)
        tasks.start_soon(_stop_with_agent, process, lifetime)

        def report() -> SidecarReport:
            return _report(backend, presence, registration.project, session.connected, process.attached)

        def readiness() -> Readiness:
            return _readiness(lifetime, _state(presence, session.connected), source, gateway)

        middleware = origin_middleware(config, loopback=True)
        paths = {**routes(report, process, lifetime.stop), **hook_handlers(backend, lifetime.stop)}
        mount = Mount(access, gateway, config.mcp_listeners, lambda: presence.name)
        tasks.start_soon(mount.run_forever)
        app = create_app(readiness, backend, gateway, access, middleware, paths, mount.over)
        try:
            async with front(app, presence, gateway, lifetime.stop):
                await lifetime.stop.wait()
                gateway.close()
        finally:
            await presence.deregister()
        tasks.cancel_scope.cancel()


def _state(presence: Presence, connected: bool) -> LeaseState:
    doubtful = presence.state is LeaseState.HELD and not connected
    return LeaseState.UNKNOWN if doubtful else presence.state


def _report(backend: Backend, presence: Presence, project: str, connected: bool, attached: int) -> SidecarReport:
    state = _state(presence, connected)
    agent = AgentReport(presence.id, project, presence.name, presence.role, state.name)
    return SidecarReport(agent, connected, attached, backend.book.report(), backend.jobs.report(state))


def _readiness(lifetime: Lifetime, state: LeaseState, source: Source, gateway: Gateway) -> Readiness:
    reason = "shutting down" if lifetime.stop.is_set() else NOT_READY.get(state)
    reason = reason or source.obstacle() or gateway.obstacle(READY_WITHIN_S)
    return Readiness(ready=reason is None, leads=False, reason=reason)


async def _stop_with_agent(process: AgentProcess, lifetime: Lifetime) -> None:
    reason = await process.gone()
    log.info("sidecar.stopping", reason=reason)
    lifetime.stop.set()


def _lowered(config: Config) -> Config:
    """Lower the settings to what one agent needs."""
    maxima = {name: setting.sidecar_max for name, setting in SETTINGS.items() if setting.sidecar_max is not None}
    return replace(config, **{name: min(getattr(config, name), maximum) for name, maximum in maxima.items()})
