"""`python -m <module>` as a process that is forked from one that has imported the product already.

Such a process has its own files, folder, environment and signals like any other, but it starts in a tenth of the time. Start
a real one where the start itself matters: what it imports, or how the interpreter reads its environment.

Each process of the suite has a server that imports the product and then forks keepers. A keeper forks the program, and
reports its process id and then how it ended.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

__all__ = ["ROOT", "Forked"]

ROOT = Path(__file__).parent.parent
PRELOADED = (
    "coordinator.cli.main",
    "coordinator.client.http",
    "coordinator.daemon",
    "coordinator.sidecar.main",
    "uvloop",
)


class Forked:
    """One process, with the methods of `subprocess.Popen`. Its standard input is empty unless a file is given.

    `constants` sets constants of its modules, by their dotted names.
    """

    def __init__(
        self,
        module: str,
        *arguments: str | bytes,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        constants: Mapping[str, float] | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
    ) -> None:
        self.returncode: int | None = None
        self._status, status = socket.socketpair()
        texts = [os.fsdecode(argument) for argument in arguments]
        request = [module, texts, str(cwd), dict(env or os.environ), dict(constants or {})]
        data = json.dumps(request).encode()
        with status, Path(os.devnull).open("rb") as nothing:
            files = (stdin or nothing, stdout or 1, stderr or 2, status)
            fds = [file if isinstance(file, int) else file.fileno() for file in files]
            socket.send_fds(_server(), [b"%8d" % len(data)], fds)
            _server().sendall(data)
        self._reports = self._status.makefile("rb", buffering=0)
        self.pid = int(self._reports.readline())

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process has ended, and return its exit code.

        Raises: ``TimeoutError``.
        """
        code = self._look(timeout)
        if code is None:
            raise TimeoutError
        return code

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(self._reports.readline())
            self._reports.close()
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _server() -> socket.socket:
    """Start the server; it ends with this process."""
    ours, theirs = socket.socketpair()
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.forked", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
        )
    atexit.register(server.wait)
    atexit.register(ours.close)  # runs first
    return ours


def _serve(requests: socket.socket) -> list[Any] | None:
    """Fork a keeper for each request. Return the request in the program, and None when the suite has ended."""
    while True:
        head, fds, _, _ = socket.recv_fds(requests, 8, 4)
        if not head:
            return None
        request = requests.recv(int(head), socket.MSG_WAITALL)
        if os.fork() == 0:
            requests.close()
            return _keep(fds, json.loads(request))
        for fd in fds:
            os.close(fd)
        with suppress(ChildProcessError):  # all keepers have ended
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _keep(fds: list[int], request: list[Any]) -> list[Any]:
    """Fork the program and return its request there; report on it here."""
    *files, status = fds
    pid = os.fork()
    if pid == 0:
        for target, file in enumerate(files):
            os.dup2(file, target)
        for fd in fds:
            os.close(fd)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return request
    for file in files:
        os.close(file)
    os.write(status, b"%d\n" % pid)
    os.write(status, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def _main(fd: int) -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    with socket.socket(fileno=fd) as requests:
        request = _serve(requests)
    if request is None:
        return
    module, arguments, folder, environment, constants = request
    for name, value in constants.items():
        owner, _, constant = name.rpartition(".")
        found = importlib.import_module(owner)
        assert hasattr(found, constant), name
        setattr(found, constant, value)
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
        os._exit(end.code if isinstance(end.code, int) else 0)  # without taking the interpreter down, which takes 40 ms


if __name__ == "__main__":
    _main(int(sys.argv[1]))
