"""Connecting: a client that exists as long as its context, optionally with its own agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from coordinator.client.agents import DEFAULT_TTL_S, Agents
from coordinator.client.artifacts import Artifacts
from coordinator.client.audits import Audits
from coordinator.client.briefings import Briefings
from coordinator.client.caller import Caller, Duration, as_duration
from coordinator.client.crons import Crons
from coordinator.client.directives import Directives
from coordinator.client.documents import Documents
from coordinator.client.events import Events
from coordinator.client.features import Features
from coordinator.client.files import Files
from coordinator.client.jobs import Jobs
from coordinator.client.knowledge import Knowledge
from coordinator.client.limits import Limits
from coordinator.client.locks import Locks
from coordinator.client.logs import Logs
from coordinator.client.memories import Memories
from coordinator.client.messages import Messages
from coordinator.client.observations import Observations
from coordinator.client.presence import Presence
from coordinator.client.projects import Projects
from coordinator.client.queues import Queues
from coordinator.client.retentions import Retentions
from coordinator.client.rules import Rules
from coordinator.client.sessions import Sessions
from coordinator.client.signals import Signals
from coordinator.client.states import States
from coordinator.client.steps import Steps
from coordinator.client.todos import Todos
from coordinator.client.transactions import Transactions
from coordinator.client.transport import Transport, open_transport
from coordinator.client.users import Users
from coordinator.client.webhooks import Webhooks
from coordinator.client.workers import Workers
from coordinator.config import Config, load
from coordinator.embedded import address
from coordinator.errors import ConfigurationError, InvalidArgument
from coordinator.model.doctor import Finding
from coordinator.model.lag import MAX_LAG_S
from coordinator.model.operation import Json
from coordinator.model.server import ServerCalls, ServerSize
from coordinator.model.status import Status
from coordinator.operations import agents, doctor, server, status
from coordinator.operations.liveness import Liveness
from coordinator.telemetry import tracing

__all__ = ["Client", "connect", "settings_for"]

DEFAULT = Config(min_connections=1, max_connections=4)


class Client:
    """The verbs of one project: ``client.signals.set(…)``. ``agent`` is the client's own agent, if it has one."""

    def __init__(self, caller: Caller, tasks: TaskGroup, beside: Client | None = None) -> None:
        self._caller = caller
        self._tasks = tasks
        self.project = caller.project
        self.projects = Projects(caller)
        self.agents = Agents(caller)
        self.files = Files(caller)
        self.briefings = Briefings(caller)
        self.signals = Signals(caller)
        self.rules = Rules(caller)
        self.retentions = Retentions(caller)
        self.sessions = Sessions(caller)
        self.users = Users(caller)
        self.directives = Directives(caller)
        self.documents = Documents(caller)
        self.states = States(self.documents)
        self.todos = Todos(self.documents)
        self.features = Features(self.documents)
        self.queues = Queues(caller)
        self.artifacts = Artifacts(caller)
        self.audits = Audits(caller)
        self.crons = Crons(caller)
        self.limits = Limits(caller)
        self.memories = Memories(caller)
        self.knowledge = Knowledge(caller)
        self.messages = Messages(caller)
        self.steps = Steps(caller)
        self.observations = Observations(caller)
        self.events: Events = Events(caller, tasks, None if beside is None else beside.events)
        self.locks = Locks(caller, self.events, tasks)
        self.logs = Logs(caller, self.events)
        self.lock = self.locks.hold
        self.jobs = Jobs(caller, self.events)
        self.workers = Workers(caller)
        self.webhooks = Webhooks(caller)
        self.transactions = Transactions(caller)

    @property
    def position(self) -> str | None:
        """The position of this client's writes so far. Pass it to a reader, for ``at_least``. None: it has written nothing."""
        return str(self._caller.positions) or None

    def at_least(self, position: str) -> Client:
        """Return this client, with reads that include a position: ``client.at_least(position).signals.get(…)``.

        ``position`` is the position of another client, a cursor, or several of them, separated by commas. A read waits
        for it up to 5 seconds; so does the first step of a stream.

        Raises, at each read: ``WaitTimedOut`` when the time is up; ``InvalidArgument`` for a malformed position;
        ``Conflict`` if no read will ever include it: its transaction was rolled back, or may be lost.
        """
        return Client(self._caller.at_least(position), self._tasks, self)

    def max_lag(self, max_lag: Duration) -> Client:
        """Return this client, with lists and searches that may be this old: ``client.max_lag(5).jobs.list()``.

        A daemon with a replica then reads there, if the replica's data is at most this old, in seconds or as a
        timedelta. Otherwise, it reads on the primary: see ``docs/replica.md``. For a list that is as new as an event,
        add ``at_least`` with the event's cursor.

        Raises: ``InvalidArgument`` for a duration that is negative or longer than a day.
        """
        max_lag_s = as_duration(max_lag).total_seconds()
        if not 0 <= max_lag_s <= MAX_LAG_S:
            raise InvalidArgument(
                f"a max_lag of {max_lag_s:g} seconds is out of range", hint=f"Give 0 to {MAX_LAG_S:g} seconds."
            )
        return Client(self._caller.max_lag(max_lag_s), self._tasks, self)

    async def status(self) -> Status:
        """Return the server, the schema, the leader, what the project contains, and what needs attention.

        Raises: ``NotFound`` if there is no such project.
        """
        return await self._caller.run(status.Show(project=self.project))

    async def calls(self) -> list[ServerCalls]:
        """Return which calls run in the server, and for how long; with pg_stat_statements also how long those took that ended.

        Raises: ``PermissionDenied`` for who may not see all projects.
        """
        return await self._caller.run(server.ListCalls())

    async def sizes(self) -> list[ServerSize]:
        """Return how large the database, its tables and its projects are, and how much they grew in a day and in a week.

        Raises: ``PermissionDenied`` for who may not see all projects.
        """
        return await self._caller.run(server.ListSizes())

    async def doctor(self, *checks: str) -> list[Finding]:
        """Examine the database, and return what was found: all checks, or these.

        Raises: ``InvalidArgument`` for a check that the database does not know; ``PermissionDenied`` for who may not see all projects.
        """
        return await self._caller.run(doctor.Run(checks=list(checks) or None))

    @property
    def agent(self) -> Presence:
        """The client's own agent.

        Raises: ``ConfigurationError`` if it connected without one.
        """
        if self._caller.presence is None:
            raise ConfigurationError("this client has no agent", hint='Connect with agent="…".')
        return self._caller.presence


@asynccontextmanager
async def connect(
    url: str | None = None,
    *,
    project: str | None = None,
    agent: str | None = None,
    role: str | None = None,
    job_types: Sequence[str] = (),
    labels: Sequence[str] = (),
    metadata: Mapping[str, Json] | None = None,
    ttl: Duration = DEFAULT_TTL_S,
    token: str | None = None,
    config: Config | None = None,
) -> AsyncIterator[Client]:
    """Connect. With ``agent``, register that agent, keep it alive, and deregister it when the context ends.

    ``url`` is the address of a database, ``postgresql://…``, or of a daemon or sidecar: ``https://…`` (with a ``token``
    if it requires one), ``http://…`` or ``unix:///path``. Without it, address, project, token and timeouts come from where the
    command line takes them: the environment and the profile, else the embedded server. ``config`` replaces all of that.

    ``ttl`` is how long the agent may be silent. On PostgreSQL the death of its process is noticed at once, over HTTP only
    when the TTL has passed. On PostgreSQL the agent and the client's streams each need a direct connection besides the
    pool; set ``config.direct_url`` if the address is a pooler's.

    Raises: ``ConfigurationError`` for the address; ``DatabaseUnavailable``; what ``agents.Register`` raises.
    """
    url, config = settings_for(url, config)
    if config.tracing == "on":
        tracing.start("coordinator-client")
    if project is None:
        project = config.project
    if token is not None:
        config = replace(config, token=token)
    registration = None
    if agent is not None:
        registration = agents.Register(
            project=project,
            name=agent,
            role=role,
            job_types=list(job_types),
            labels=list(labels),
            metadata=dict(metadata or {}),
            ttl=as_duration(ttl),
        )
    failure: BaseException | None = None
    async with (
        open_transport(url, config) as transport,
        _liveness(transport, registration) as liveness,
        anyio.create_task_group() as tasks,
    ):
        # Carried past the task groups, which would wrap the caller's own exceptions in groups.
        try:
            presence = None
            if registration is not None:
                presence = await Presence.register(registration, liveness, transport.executor)
                with tracing.apart():
                    tasks.start_soon(presence.keep)
            try:
                yield Client(Caller(transport.executor, project, config.call_timeout_s, presence), tasks)
            finally:
                if presence is not None:
                    await presence.deregister()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def settings_for(url: str | None, config: Config | None) -> tuple[str, Config]:
    """Return the address and the settings of a client that gives these, or neither.

    Raises: ``ConfigurationError``; ``DatabaseUnavailable`` if no address is configured and no embedded server runs.
    """
    if config is None:
        config = DEFAULT if url is not None else replace(load(), min_connections=1, max_connections=4)
    if url is None:
        url = config.database_url or address(config.data_dir)
    return url, config


@asynccontextmanager
async def _liveness(transport: Transport, registration: agents.Register | None) -> AsyncIterator[Liveness | None]:
    """Keep a proof of life while the context lasts, if the client registers an agent."""
    if registration is None or transport.session is None:
        yield None
        return
    session = transport.session()
    liveness = Liveness(session, "client")
    async with session.kept():
        yield liveness
