"""`python -m <module>` as a process that is forked from one that has imported the product already.

Such a process has its own files, folder, environment and signals like any other, but it starts in a tenth of the time. Start
a real one where the start itself matters: what it imports, or how the interpreter reads its environment.

Each process of the suite has a server that imports the product and then forks programs. It reports the process id of each,
and then how it ended.
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
from typing import Any

__all__ = ["ROOT", "Forked"]

ROOT = Path(__file__).parent.parent
PRELOADED = (
    "coordinator.cli.main",
    "coordinator.client.http",
    "coordinator.daemon",
    "coordinator.sidecar.main",
    "uvloop",
)


class Forked(subprocess.Popen[Any]):
    """One such process, with everything that `subprocess.Popen` has. Its standard input is empty unless one is given.

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
        self._request = [dict(env or os.environ), dict(constants or {})]
        words = [module, *map(os.fsdecode, arguments)]
        super().__init__(words, **{"cwd": ROOT, "stdin": subprocess.DEVNULL, **options})

    def _execute_child(self, words: list[str], *options: Any) -> None:
        folder, pipes = options[4], options[9:15]  # as Popen lists them; the rest is for what executes a file
        ours, status = socket.socketpair()
        self._reports = ours.makefile("rb", buffering=0)
        data = json.dumps([*words[:1], words[1:], str(folder), *self._request]).encode()
        with ours, status:
            files = [
                *(given if given >= 0 else n for n, given in enumerate(pipes[i] for i in (0, 3, 5))),
                status.fileno(),
            ]
            socket.send_fds(_server(), [b"%8d" % len(data)], files)
            _server().sendall(data)
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
    """Fork a program for each request, and report how it ended. Return the request there, None when the suite has ended."""
    reports: dict[int, int] = {}  # by the id of the process
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready = select.select([requests, woken], [], [])[0]
        if woken in ready:
            woken.recv(4096)
        while reports and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _report(reports[ended[0]], os.waitstatus_to_exitcode(ended[1]))
            os.close(reports.pop(ended[0]))
        if requests in ready:
            head, fds, _, _ = socket.recv_fds(requests, 8, 4)
            if not head:
                return None
            request: list[Any] = json.loads(requests.recv(int(head), socket.MSG_WAITALL))
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for target, file in enumerate(fds[:3]):
                    os.dup2(file, target)
                for fd in (*fds, *reports.values()):
                    os.close(fd)
                for end in (requests, woken, wake):
                    end.close()
                return request
            for file in fds[:3]:
                os.close(file)
            reports[pid] = fds[3]
            _report(fds[3], pid)


def _report(file: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the test has ended
        os.write(file, b"%d\n" % number)


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
        os._exit(end.code if isinstance(end.code, int) else 0)  # without taking the interpreter down, which takes 40 ms


if __name__ == "__main__":
    _main(int(sys.argv[1]))
