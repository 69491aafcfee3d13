"""The decisions of hooks: which events lease, record and release files, for every tool.

The session of a tool is an agent named after the session's id, so any later process can find it. The session is also
the owner of its leases, and each of its subagents is an owner below it. Every call counts as its heartbeat and renews
its leases.

Nearly every event takes one call. An edit is repeated if the content of a file changed between its hash and its lease,
and while it waits; each repetition keeps its place in the queue for ``PLACE_S``. Errors of a call are raised to the
caller: see ``unanswered``.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from coordinator.errors import Conflict, CoordinatorError, NotFound
from coordinator.hooks.content import UNKNOWN, fingerprint
from coordinator.hooks.event import Action, Decision, File, HookEvent, Kind, Verdict
from coordinator.hooks.place import Place
from coordinator.hooks.quote import shortened
from coordinator.hooks.shell import DEFAULTS, ShellRule, locks_of
from coordinator.model.catalogue import LIMITS
from coordinator.model.file import FileGrant, FileState, FileStep
from coordinator.model.operation import Json
from coordinator.operations import agents, files
from coordinator.operations.executor import Runner

if TYPE_CHECKING:
    from coordinator.hooks.refusal import RefusalText

__all__ = ["HookOptions", "Unreachable", "agent_of", "decide", "hashes", "of_tool", "owner_of", "unanswered"]

LOOK_S = 0.1  # between the first two polls of the queue
LOOK_MAX_S = 1.0
PLACE_S = 10.0  # a place in the queue outlasts the last poll by this, so a call that is killed soon leaves the queue
AGAIN = 5  # maximum repetitions of an edit because a file keeps changing
MOST_FILES = 1000  # maximum files of a call that are checked; resolving each name takes time
TASK = 200
_NUMBER = re.compile(r"[0-9]{1,9}")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,80}")

Unreachable = Literal["ask", "allow", "deny"]


def hashes(paths: Iterable[str | None]) -> list[str]:
    """Return the hashes of files; None stands for a file that is not read."""
    return [UNKNOWN if path is None else fingerprint(path) for path in paths]


async def _hashes(paths: Iterable[str | None]) -> list[str]:
    return hashes(paths)


async def _look(_count: int, work: Callable[[], Any]) -> Any:
    return work()


class HookOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of hooks.

    ``wait``: how long to wait for a file that is held. ``ttl``: of a session and its leases after its last call.
    ``shared_reads``: reads take shared leases. ``until_commit``: leases outlast a turn. ``unreachable``: the decision
    if the coordinator does not respond. ``sees_files``: the files are on this machine. ``reports_reads``: the tool has
    hooks for reads. ``news_later``: the tool shows the model no text at a prompt, so news comes after its next call.
    ``process``: the process with which the session ends. ``command`` returns the start of a command line for the agent;
    it includes the coordinator's address if the agent's shell does not know it. ``pause`` waits between two polls of
    the queue, and returns whether to continue waiting; ``hashes`` reads files; ``look`` runs work that looks up many
    files; ``heartbeat`` makes a call that is only a heartbeat, if it is necessary; by default, it always is.
    """

    pause: Callable[[float], Awaitable[bool]]
    hashes: Callable[[Iterable[str | None]], Awaitable[list[str]]] = _hashes
    look: Callable[[int, Callable[[], Any]], Awaitable[Any]] = _look
    heartbeat: Callable[[agents.Join], Awaitable[object]] | None = None
    wait: timedelta = timedelta(0)
    ttl: timedelta = files.TTL
    shared_reads: bool = False
    until_commit: bool = False
    unreachable: Unreachable = "ask"
    sees_files: bool = True
    reports_reads: bool = True
    news_later: bool = False
    process: str | None = None
    command: Callable[[], str] = lambda: "coordinator"
    rules: Sequence[ShellRule] = DEFAULTS


def of_tool(options: HookOptions, dialect: object) -> HookOptions:
    """Return options, without those that the tool does not support according to its dialect."""
    return msgspec.structs.replace(
        options,
        reports_reads=getattr(dialect, "REPORTS_READS", True),
        news_later=not getattr(dialect, "HEARS_PROMPTS", True),
    )


def agent_of(event: HookEvent) -> str:
    """Return the name of a session's agent: never just an id, which could be that of another agent."""
    return f"{event.tool}-{_named(event.session)}"


def owner_of(event: HookEvent) -> str:
    """Return the owner of this call's leases: the session, or the subagent below it."""
    session = _named(event.session)
    return session if event.subagent is None else f"{session}/{_named(event.subagent)}"


def _named(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


async def decide(event: HookEvent, place: Place, executor: Runner, options: HookOptions) -> Verdict:
    """Return the answer to the tool.

    Raises: ``CoordinatorError`` if the coordinator cannot decide.
    """
    if event.kind is Kind.OTHER or not event.session:
        return Verdict()
    hook = _Hook(event, place, executor, options)
    try:
        return await hook.verdict()
    except NotFound as error:
        if error.code != "ZC201":
            raise
    from coordinator.operations import projects  # noqa: PLC0415 - like the imports below, not needed by most calls

    with suppress(Conflict):  # another session has just created it
        await executor.run(projects.Create(project=place.project))
    return await hook.verdict()


def unanswered(event: HookEvent, options: HookOptions, reason: str) -> Verdict:
    """Return the verdict of the policy for a call to which the coordinator did not respond."""
    line = shortened(f"coordinator: {reason}", 300)
    guarded = event.kind is Kind.BEFORE_EDIT or (
        event.kind is Kind.BEFORE_SHELL and (event.files or locks_of(event.command or "", options.rules))
    )
    if not guarded and not (event.kind is Kind.BEFORE_READ and options.shared_reads):
        return Verdict(reason=line if event.kind in (Kind.SESSION_START, Kind.PROMPT) else "")
    match options.unreachable:
        case "allow":
            return Verdict(reason=f"{line} Allowed without a lease.")
        case "deny":
            return Verdict(Decision.DENY, f"{line} Denied: the file cannot be leased. Try again later.")
        case _:
            return Verdict(Decision.ASK, f"{line} Another agent may be editing the same files.")


class _Hook:
    """One call of a hook."""

    def __init__(self, event: HookEvent, place: Place, executor: Runner, options: HookOptions) -> None:
        self._event = event
        self._place = place
        self._executor = executor
        self._options = options
        self._agent = agent_of(event)
        self._owner = owner_of(event)
        self._waiting: FileGrant | None = None
        self._found: dict[str, str | None] | None = None

    async def verdict(self) -> Verdict:
        event, options = self._event, self._options
        if len(event.files) > MOST_FILES and event.kind in (Kind.BEFORE_EDIT, Kind.BEFORE_SHELL):
            return _many(len(event.files))
        match event.kind:
            case Kind.SESSION_END:
                await self._leave("", end=True)
            case Kind.STOP | Kind.SUBAGENT_STOP | Kind.COMPACT:
                await self._stop()
            case Kind.BEFORE_READ:
                return await self._read()
            case Kind.AFTER_READ:
                await self._record(FileStep.READ)
            case Kind.BEFORE_EDIT:
                return await self._lease(await self._resources(event.files))
            case Kind.AFTER_EDIT:
                await self._record(FileStep.WRITTEN)
            case Kind.BEFORE_SHELL:
                return await self._lease(await self._resources(event.files) | dict.fromkeys(self._rules()))
            case Kind.AFTER_SHELL:
                await self._record(FileStep.WRITTEN)
                if needed := self._rules():
                    await self._leave(self._owner, needed)
            case Kind.SESSION_START | Kind.PROMPT:
                await self._executor.run(self._join())
                return Verdict(context=await self._told())
            case _:
                await self._heartbeat()
        if options.news_later and event.kind in (Kind.AFTER_EDIT, Kind.AFTER_SHELL):
            return Verdict(context=await self._told())
        return Verdict()

    async def _told(self) -> str | None:
        """Return what the session should know when it begins, and later what is new."""
        if not self._event.hears:
            return None
        from coordinator.hooks.context import greet, news  # noqa: PLC0415

        tell = greet if self._event.kind is Kind.SESSION_START else news
        return await tell(self._event, self._place, self._executor, self._agent, self._options.command()) or None

    def _join(self) -> agents.Join:
        process = self._options.process or ""
        return agents.Join(
            project=self._place.project,
            name=self._agent,
            metadata=self._metadata(),
            ttl=self._options.ttl,
            process=int(process) if _NUMBER.fullmatch(process) else None,
        )

    async def _heartbeat(self) -> None:
        await (self._options.heartbeat or self._executor.run)(self._join())

    def _metadata(self) -> dict[str, Json]:
        task = self._event.task or self._event.prompt
        metadata: dict[str, Json] = {"tool": self._event.tool, "worktree": self._place.worktree}
        if task and self._event.subagent is None:
            metadata["task"] = shortened(task, TASK)
        if self._options.process:
            metadata["process"] = self._options.process
        return metadata

    def _rules(self) -> list[str]:
        return [self._place.scoped(lock) for lock in locks_of(self._event.command or "", self._options.rules)]

    async def _resources(self, given: Sequence[File]) -> dict[str, str | None]:
        """Return the locks for files, each with the path whose content is compared; None if it is not a single file."""
        if self._found is None:
            self._found = await self._options.look(len(given), lambda: self._look_up(given))
        return self._found

    def _look_up(self, given: Sequence[File]) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for file in given[:MOST_FILES]:
            link = file.action in (Action.RENAME, Action.DELETE)
            resource = self._place.resource(file.path, link=link)
            if resource is not None:
                single = self._options.sees_files and not resource.endswith("/") and not resource.startswith("glob:")
                found[resource] = os.path.join(self._place.cwd, file.path) if single else None
        return found

    async def _read(self) -> Verdict:
        resources = await self._resources(self._event.files)
        if self._options.shared_reads and resources:
            refusal = await self._lease(resources, shared=True)
            if refusal.decision is not None:
                return refusal
        await self._record(FileStep.READING)
        return Verdict()

    async def _record(self, step: FileStep) -> None:
        """Record what files contain; a call without files is a heartbeat."""
        seen = {
            resource: path
            for resource, path in (await self._resources(self._event.files)).items()
            if path is not None or (not self._options.sees_files and not resource.endswith("/"))
        }
        if not seen:
            await self._heartbeat()
            return
        resources = list(seen)
        for first in range(0, len(resources), LIMITS["lock_resources"]):
            paths = resources[first : first + LIMITS["lock_resources"]]
            await self._executor.run(
                files.Record(
                    project=self._place.project,
                    agent=self._agent,
                    owner=self._owner,
                    paths=paths,
                    hashes=await self._options.hashes(seen[path] for path in paths),
                    step=step,
                    ttl=self._options.ttl,
                    metadata=self._metadata(),
                )
            )

    async def _stop(self) -> None:
        """Release everything; or keep leases on files for the session, because what a subagent has edited is the session's to commit."""
        if not self._options.until_commit:
            await self._leave(self._owner)
            return
        await self._heartbeat()
        # Of a command that was refused or interrupted: nothing has reported its end.
        locks = dict.fromkeys(self._place.scoped(lock) for rule in self._options.rules for lock in rule.locks)
        paths = [lock for lock in locks if not lock.startswith("name:")]
        for first in range(0, len(paths), LIMITS["lock_resources"]):
            await self._leave(self._owner, paths[first : first + LIMITS["lock_resources"]])
        await self._leave(self._owner, heir=self._owner.partition("/")[0])  # names are released

    async def _leave(
        self, owner: str, paths: list[str] | None = None, *, end: bool = False, heir: str | None = None
    ) -> None:
        await self._executor.run(
            files.Leave(project=self._place.project, agent=self._agent, owner=owner, paths=paths, end=end, heir=heir)
        )

    async def _lease(self, resources: dict[str, str | None], *, shared: bool = False) -> Verdict:
        if not resources:
            await self._heartbeat()
            return Verdict()
        if len(resources) > LIMITS["lock_resources"]:
            return _many(len(resources))
        try:
            grants = await self._granted(resources, shared=shared)
        finally:
            if self._waiting is not None:
                await self._withdraw(self._waiting)
        refused = [grant for grant in grants if grant.state != FileState.GRANTED]
        if not refused:
            return self._noted(grants)
        return Verdict(Decision.DENY, self._refusal_text().refusal(refused, shared=shared))

    def _noted(self, grants: list[FileGrant]) -> Verdict:
        """Return a verdict without a decision that names the agents that edit the same files in other work trees."""
        if self._place.shared or not any(grant.elsewhere for grant in grants):
            return Verdict()
        text = self._refusal_text().elsewhere(grants)
        return Verdict(context=text) if self._event.hears else Verdict(reason=text)

    def _refusal_text(self) -> RefusalText:
        from coordinator.hooks.refusal import RefusalText  # noqa: PLC0415

        return RefusalText(self._place, self._agent, self._owner, self._options.command)

    async def _granted(self, resources: dict[str, str | None], *, shared: bool) -> list[FileGrant]:
        """Lease files, after a wait if necessary; return the decision for the content that they then have."""
        ends_at = time.monotonic() + self._options.wait.total_seconds()
        found = await self._options.hashes(resources.values())
        look_s, again = LOOK_S, AGAIN
        while True:
            left_s = ends_at - time.monotonic()
            grants = await self._executor.run(
                files.Edit(
                    project=self._place.project,
                    agent=self._agent,
                    owner=self._owner,
                    paths=list(resources),
                    hashes=found,
                    ttl=self._options.ttl,
                    wait=timedelta(seconds=min(left_s, PLACE_S)) if left_s > 0 else None,
                    shared=shared,
                    told=not self._options.reports_reads,
                    metadata=self._metadata(),
                )
            )
            self._waiting = next((grant for grant in grants if grant.ticket is not None), None)
            if any(grant.state not in (FileState.GRANTED, FileState.STALE) for grant in grants):
                if left_s <= 0 or any(grant.state == FileState.DEADLOCK for grant in grants):
                    return grants
                if not await self._options.pause(max(min(look_s, ends_at - time.monotonic()), 0.01)):
                    ends_at = 0.0
                look_s = min(1.5 * look_s, LOOK_MAX_S)
                continue
            before, found, again = found, await self._options.hashes(resources.values()), again - 1
            if before == found or not again:
                return grants

    async def _withdraw(self, waiting: FileGrant) -> None:
        """Leave the queue, because the call was interrupted, has failed, or stops waiting."""
        from coordinator.operations import locks  # noqa: PLC0415

        assert waiting.ticket is not None  # noqa: S101 - the caller has checked it
        with suppress(CoordinatorError):  # the ticket expires anyway
            await self._executor.run(
                locks.Cancel(project=self._place.project, ticket=waiting.ticket, agent=waiting.agent_id)
            )


def _many(count: int) -> Verdict:
    return Verdict(
        Decision.DENY,
        f"This call changes {count} files; at most {LIMITS['lock_resources']} can be leased together."
        " Split it into smaller calls.",
    )
