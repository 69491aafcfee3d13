"""`python -m <module>` as a process that is forked from a process that has already imported the product.

Such a process has its own files, folder, environment and signals, but starts in a tenth of the time. Start a real
process if the start itself matters: what it imports, or how the interpreter reads its environment.

Each process of the suite has a server that imports the product and then forks programs. The server reports the process
id of each, and then how it ended.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from tests import fork_client
from tests.fork_client import ask

__all__ = ["ROOT", "Forked", "forking"]

ROOT = Path(__file__).parent.parent
PRELOADED = (
    "anyio._backends._asyncio",
    "coordinator.bridge.main",
    "coordinator.bridge.takeover",
    "coordinator.cli.main",
    "coordinator.client.brief",
    "coordinator.client.http",
    "coordinator.daemon",
    "coordinator.db.single",
    "coordinator.sidecar.main",
    "coordinator.telemetry.logs",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.websockets.auto",
    "uvloop",
)


class Forked(subprocess.Popen[Any]):
    """A forked process with everything that `subprocess.Popen` has. Its standard input is empty unless one is given.

    `constants` sets constants of its modules, by their dotted names.
    """

    def __init__(
        self,
        module: str,
        *arguments: str | bytes,
        env: Mapping[str, str] | None = None,
        constants: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        self._given = dict(env or os.environ), dict(constants or {})
        words = [module, *map(os.fsdecode, arguments)]
        super().__init__(words, **{"cwd": ROOT, "stdin": subprocess.DEVNULL, **options})

    def _execute_child(self, words: list[str], *options: Any) -> None:
        folder, pipes = (
            options[4],
            options[9:15],
        )  # in the order of Popen's parameters; the others are for executing a file
        files = [given if given >= 0 else number for number, given in enumerate(pipes[i] for i in (0, 3, 5))]
        self._reports = ask(_address(), [words[0], words[1:], str(folder), *self._given], files)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        self.pid = int(self._reports.readline())

    def _internal_poll(self, **_: Any) -> int | None:
        return self._look(0)

    def _wait(self, timeout: float | None) -> int:
        if (code := self._look(timeout)) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _look(self, timeout: float | None) -> int | None:
        if self._waitpid_lock.acquire(blocking=timeout != 0):  # type: ignore[attr-defined]
            try:
                if self.returncode is None and select.select([self._reports], [], [], timeout)[0]:
                    self.returncode = int(self._reports.readline())
                    self._reports.close()
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def forking(module: str, constants: Mapping[str, float] | None = None) -> list[str]:
    """Return the command that forks a module where it is executed, with the standard streams that it gets there."""
    given = json.dumps(dict(constants or {}))
    return [sys.executable, "-I", "-S", fork_client.__file__, _address(), given, module]


@cache
def _address() -> str:
    """Start the server, which ends with this process; return the socket on which it accepts requests, only from this user."""
    folder = tempfile.TemporaryDirectory(prefix="f-", dir="/tmp")
    address = f"{folder.name}/s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.forked", str(listener.fileno())],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            pass_fds=[listener.fileno()],
        )
    atexit.register(folder.cleanup)
    atexit.register(server.communicate)  # runs first
    return address


def _serve(listener: socket.socket) -> list[Any] | None:
    """Fork a program for each request, and report how it ended. In the forked process, return the request; return None when the suite has ended."""
    asked: dict[int, socket.socket] = {}  # by the id of the process
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready = select.select([sys.stdin, listener, woken], [], [])[0]
        if sys.stdin in ready:
            return None
        if woken in ready:
            woken.recv(4096)
        while asked and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with asked.pop(ended[0]) as connection:
                _report(connection, os.waitstatus_to_exitcode(ended[1]))
        if listener in ready:
            connection = listener.accept()[0]
            head, files, _, _ = socket.recv_fds(connection, 8, 3)
            request: list[Any] = json.loads(connection.recv(int(head), socket.MSG_WAITALL))
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for target, file in enumerate(files):
                    os.dup2(file, target)
                    os.close(file)
                for end in (listener, woken, wake, connection, *asked.values()):
                    end.close()
                return request
            for file in files:
                os.close(file)
            asked[pid] = connection
            _report(connection, pid)


def _report(connection: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # the test has ended
        connection.sendall(b"%d\n" % number)


def _preload() -> None:
    """Import the product, and compute what every start of a daemon derives from the operations and files of the product."""
    for module in PRELOADED:
        importlib.import_module(module)
    from coordinator import operations
    from coordinator.api.endpoint import endpoints
    from coordinator.cli import commands
    from coordinator.db import schema
    from coordinator.model.fields import fields_of
    from coordinator.version import version

    for command in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        importlib.import_module(command.name)
    for operation in operations.every():
        fields_of(operation)
    endpoints()
    schema.files()
    version()


def _main(fd: int) -> None:
    _preload()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    with socket.socket(fileno=fd) as listener:
        request = _serve(listener)
    if request is None:
        return
    module, arguments, folder, environment, constants = request
    for name, value in constants.items():
        owner, _, constant = name.rpartition(".")
        found = importlib.import_module(owner)
        assert hasattr(found, constant), name
        setattr(found, constant, value)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 - as a start makes them
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for option in environment.get("PYTHONWARNINGS", "ignore").split(","):  # as "error,ignore::ResourceWarning"
        action, _, category = option.partition("::")
        warnings.simplefilter(action, getattr(builtins, category or "Warning"))
    sys.argv[1:] = arguments
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)  # without finalising the interpreter, which takes 40 ms


if __name__ == "__main__":
    _main(int(sys.argv[1]))
