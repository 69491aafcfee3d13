"""Other lock servers for comparison, started if they are installed: Redis and etcd."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["etcd", "redis"]

READY_S = 10.0
FENCED_DELETE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"

Pair = Callable[[], None]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} did not start") from None
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def redis(*, durable: bool) -> Iterator[Pair | None]:
    """SET NX PX and a conditional delete; durable: every write is synced before its response."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder:
        sync = ("--appendonly", "yes", "--appendfsync", "always") if durable else ("--appendonly", "no")
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", *sync]
        with _running(command, port), socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = connection.makefile("rb")

            def send(*words: str) -> bytes:
                parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
                connection.sendall(f"*{len(words)}\r\n{parts}".encode())
                return answers.readline()

            def pair() -> None:
                if send("SET", "lock", "token", "NX", "PX", "30000") != b"+OK\r\n":
                    raise SystemExit("redis did not give the lock")
                if send("EVAL", FENCED_DELETE, "1", "lock", "token") != b":1\r\n":
                    raise SystemExit("redis did not take the lock back")

            yield pair
            answers.close()


@contextmanager
def etcd() -> Iterator[Pair | None]:
    """Lock and unlock of the v3 API, under one lease."""
    program = shutil.which("etcd")
    if program is None:
        yield None
        return
    port, peer = _free_port(), _free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder:
        command = [
            program, "--data-dir", folder, "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", f"http://127.0.0.1:{peer}",
        ]  # fmt: skip
        with _running(command, port):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

            def post(path: str, body: dict[str, object]) -> dict[str, str]:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != http.HTTPStatus.OK:
                    raise SystemExit(f"etcd: {text.decode()}")
                return dict(json.loads(text))

            deadline = time.monotonic() + READY_S
            while True:  # it listens before it has a leader
                try:
                    lease = post("/v3/lease/grant", {"TTL": 600})["ID"]
                    break
                except (OSError, http.client.HTTPException, SystemExit):
                    if time.monotonic() > deadline:
                        raise
                    connection.close()
                    time.sleep(0.1)
            name = base64.b64encode(b"lock").decode()

            def pair() -> None:
                key = post("/v3/lock/lock", {"name": name, "lease": lease})["key"]
                post("/v3/lock/unlock", {"key": key})

            yield pair
            connection.close()
