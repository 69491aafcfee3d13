"""``coordinator hook run``: one call of a hook, from standard input to standard output.

Guarantees: it responds in the format of the tool and ends, whatever the payload, the configuration or the coordinator
does. If the coordinator does not respond to a call within the limit, the policy decides. The processor time of the
process counts towards the limit, so that its start and a call without a response together take no longer than the
limit. It never prints a stack trace.

A separate thread does the work, because a name lookup or an attempt to connect cannot be interrupted. The main thread
waits for it no longer than the limit, and ends the process. A signal ends a wait in the queue, and removes the ticket.
"""

from __future__ import annotations

import gc
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from msgspec.structs import replace

from coordinator.cli import hook_options, streams
from coordinator.cli.given import CommandLine
from coordinator.cli.located import located
from coordinator.errors import CoordinatorError
from coordinator.hooks.decide import HookOptions, decide, hashes, of_tool, unanswered
from coordinator.hooks.dialects import PAYLOAD_BYTES, decode, load, recognise
from coordinator.hooks.event import HookEvent, HookReply, Verdict
from coordinator.hooks.shell import rules_of
from coordinator.model.address import is_gateway, without_password
from coordinator.model.operation import Operation

if TYPE_CHECKING:
    from coordinator.hooks.decide import Unreachable
    from coordinator.hooks.dialects import Dialect
    from coordinator.operations.executor import Runner

__all__ = ["FLAGS", "Running", "answer"]

R = TypeVar("R")

FLAGS = {"url": "database_url", "project": "project"}  # the settings that options set
STDIN_S = 10.0  # for the whole payload
FILES_S = 10.0  # for hashing the files in the payload
ADDRESS = 200  # characters of the address that a command line shows
APART_S = 0.05  # time for the start and end of a process, in addition to its own processor time
LEAST = 1 / 3  # of the limit: the least that a call gets
BUSY_MOST = 3.0  # the largest factor by which a busy machine extends the limit
MALFORMED = 1  # not 2, which would refuse the tool's action


def answer(arguments: Sequence[str]) -> None:
    """Answer, and end the process; return only if ``hook_options`` does not understand the command line."""
    options = hook_options.read(arguments)
    if options is None:
        return
    streams.prepare()
    line = CommandLine()
    for name, setting in FLAGS.items():
        if (value := options.pop(name)) is not None:
            line.flags[setting] = (f"--{name}", value)
    Running(line, **options).finish()


class _Stopped(Exception):
    """A signal interrupted the program."""


class _Clock:
    """The time that the main thread waits: until the limit of the current call."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.ends_at = time.monotonic() + STDIN_S
        self.stopped = threading.Event()
        self._moved: SimpleQueue[None] = (
            SimpleQueue()
        )  # not an Event, because a signal may arrive during any step of one

    def begin(self, wait_s: float = 0.0) -> None:
        """Set the limit of the next call, after a pause of ``wait_s``: the rest of the limit, and at least a third of it."""
        left_s = max(self.limit_s - APART_S - time.process_time(), self.limit_s * LEAST)
        self.end_in(wait_s + left_s * _slowness())

    def end_in(self, seconds: float) -> None:
        """Set when the main thread stops waiting, even if it would have waited longer."""
        self.ends_at = time.monotonic() + seconds
        self._moved.put(None)

    def wait(self) -> bool:
        """Wait for a change or the end; return whether the time is over."""
        left_s = self.ends_at - time.monotonic()
        if left_s > 0:
            with suppress(Empty):
                self._moved.get(timeout=left_s)
        return self.ends_at <= time.monotonic()


class _Limited:
    """A runner that applies the limit to each call."""

    def __init__(self, inner: Runner, clock: _Clock) -> None:
        self._inner = inner
        self._clock = clock

    async def run(self, operation: Operation[R]) -> R:
        self._clock.begin()
        return await self._inner.run(operation)


class Running:
    """One run, with the options of the command."""

    def __init__(
        self,
        call: CommandLine,
        *,
        dialect: str | None,
        limit: timedelta,
        unreachable: Unreachable,
        worktrees: str | None,
        hold: str,
        **options: Any,
    ) -> None:
        self._call = call
        self._given = dialect
        self._unreachable = unreachable
        self._worktrees = worktrees
        self._clock = _Clock(limit.total_seconds())
        self._options = HookOptions(
            pause=self._pause,
            hashes=self._hashes,
            unreachable=unreachable,
            until_commit=hold == "until-commit",
            **options,
        )
        self._url = ""
        self._known: tuple[Dialect, HookEvent] | None = None
        self._reply: HookReply | None = None
        self._done = False

    def finish(self) -> NoReturn:
        """Answer the payload on standard input, and end the process at once: the thread may hang, and an orderly end takes 30 ms."""
        gc.disable()  # the process ends before it has garbage
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        thread = threading.Thread(target=self._work, daemon=True)
        thread.start()
        while not self._done:
            if self._clock.wait() and not self._done:
                _end(self._unanswered("the coordinator did not respond in time."))
        assert self._reply is not None  # noqa: S101 - the thread is done
        _end(self._reply)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._clock.stopped.set()  # the limit applies to the current call; after it, the thread leaves the queue
        if self._known is None:
            self._clock.end_in(0)

    def _work(self) -> None:
        try:
            self._reply = self._answer()
        except _Stopped:
            self._reply = self._unanswered("the hook was interrupted.")
        except CoordinatorError as error:
            self._reply = self._unanswered(f"{error.message}.")
        except Exception as error:  # noqa: BLE001 - a hook never shows a trace
            self._reply = self._unanswered(f"this is a bug: {type(error).__name__}: {error}.")
        self._done = True
        self._clock.end_in(0)

    def _answer(self) -> HookReply:
        payload = decode(sys.stdin.buffer.read(PAYLOAD_BYTES + 1))
        dialect = load(self._given or recognise(payload))
        event = dialect.read(payload)
        self._known = dialect, event
        from coordinator.client import brief  # noqa: PLC0415 - not needed for a malformed payload

        place = located(self._call, event.cwd or str(Path.cwd()), self._worktrees)
        options = of_tool(self._options, dialect)
        self._options = replace(
            options, rules=rules_of(place.root), process=self._call.config.process, command=self._command
        )
        self._url = self._call.dsn()
        if not is_gateway(self._url):
            import coordinator.db.single  # noqa: F401, PLC0415 - import now, so that the limit applies to the connection alone
        self._clock.begin()

        async def verdict() -> Verdict:
            async with brief.opened(self._url, self._call.config) as executor:
                return await decide(event, place, _Limited(executor, self._clock), self._options)

        return dialect.answer(event, brief.finish(self._url, verdict()))

    def _command(self) -> str:
        """Return the start of a command line for the agent. Its shell has the environment of this process, but not its flags."""
        flag = self._call.flags.get("database_url")
        found = any(os.access(f"{folder}/coordinator", os.X_OK) for folder in os.get_exec_path())
        program = "coordinator" if found else sys.argv[0]
        if flag is None or len(flag[1]) > ADDRESS or without_password(flag[1]) != flag[1]:
            return shlex.quote(program)
        return shlex.join([program, "--url", flag[1]])

    async def _pause(self, seconds: float) -> bool:
        from coordinator.client import brief  # noqa: PLC0415

        self._clock.begin(seconds)
        await brief.pause(self._url, seconds)
        if self._clock.stopped.is_set():
            raise _Stopped
        return True

    async def _hashes(self, paths: Iterable[str | None]) -> list[str]:
        self._clock.end_in(FILES_S)  # reading large files does not count as waiting for the coordinator
        return hashes(paths)

    def _unanswered(self, reason: str) -> HookReply:
        if self._known is None:
            line = " ".join(f"coordinator: {reason}".split())
            return HookReply(stderr=f"{line}\n", exit_code=2 if self._unreachable == "deny" else MALFORMED)
        dialect, event = self._known
        return dialect.answer(event, unanswered(event, self._options, reason))


def _slowness() -> float:
    """Return by which factor the coordinator may be slower than usual, because it also has to wait for a processor."""
    try:
        work = os.getloadavg()[0]
    except OSError:
        return 1.0
    return min(max(work / (os.cpu_count() or 1), 1.0), BUSY_MOST)


def _end(reply: HookReply) -> NoReturn:
    with suppress(OSError):  # nobody reads the output
        sys.stderr.write(reply.stderr)
        sys.stderr.flush()
        sys.stdout.write(reply.stdout)
        sys.stdout.flush()
    os._exit(reply.exit_code)
