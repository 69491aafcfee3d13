"""An object store in this process, for tests: PUT, GET with a range, HEAD and DELETE of S3, in path style, with strict checks of requests.

`failing(method)` sets the status of the next responses to a method. `hold` lets a request wait before it is carried out
or before its response. After `silent.set()`, there are no responses.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

ACCESS_KEY = "AKIDTEST"
STORE = "s3://bucket/some/prefix"
FOLDER = "/bucket/some/prefix/"


class Held:
    """A request that waits: `reached` is set when it does, and `go` lets it continue."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()


class FakeS3(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.statuses: dict[str, int] = {}
        self.held: dict[tuple[str, str], Held] = {}
        self.refused: list[str] = []
        self.silent = threading.Event()
        self.unanswered: list[tuple[str, str]] = []
        self._over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables through which a process finds it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "eu-central-1",
        }

    @contextmanager
    def failing(self, *methods: str, status: int = 403) -> Iterator[None]:
        """Respond to requests with a status; the client does not repeat a request that was refused with 403."""
        self.statuses |= dict.fromkeys(methods, status)
        try:
            yield
        finally:
            for method in methods:
                del self.statuses[method]

    def hold(self, method: str, *, done: bool) -> Held:
        """Let the next request of a method wait: after it was carried out (``done``), or before."""
        return self.held.setdefault((method, "done" if done else "asked"), Held())

    def wait_for_the_end(self) -> None:
        """Hold a request that gets no response."""
        self._over.wait(60)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with suppress(ConnectionError):
            super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not report clients that were killed."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for held in [*self.held.values()]:
            held.go.set()
        self._over.set()
        self.shutdown()
        self.server_close()
        assert not self.refused


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeS3

    def log_message(self, format: str, *_: object) -> None:
        pass

    def _handle(self) -> None:
        fake = self.server
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fake.requests.append((self.command, path.removeprefix(FOLDER)))
        if wrong := self._wrong(path, body):
            fake.refused.append(wrong)
            return self._answer(400, wrong.encode())
        self._wait("asked")
        if fake.silent.is_set():
            fake.unanswered.append((self.command, path.removeprefix(FOLDER)))
            fake.wait_for_the_end()
            self.close_connection = True
            return None
        if status := fake.statuses.get(self.command):
            return self._answer(status, b"<Error><Code>Injected</Code></Error>")
        status, answer = self._carry_out(path.removeprefix(FOLDER), body)
        self._wait("done")
        return self._answer(status, answer)

    do_GET = do_HEAD = do_PUT = do_DELETE = _handle  # noqa: N815

    def _wrong(self, path: str, body: bytes) -> str | None:
        """Return what is wrong with a request, if anything."""
        credential = f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/"
        scope = "/eu-central-1/s3/aws4_request"
        authorization = self.headers.get("Authorization", "")
        if not authorization.startswith(credential) or scope not in authorization:
            return f"not signed: {authorization}"
        if self.headers.get("x-amz-content-sha256") != hashlib.sha256(body).hexdigest():
            return "the signed hash is not that of the body"
        if not path.startswith(FOLDER) or urlsplit(self.path).query:
            return f"unexpected path {self.path}"
        if self.command == "PUT" and self.headers.get("Content-Length") is None:
            return "MissingContentLength"
        return None

    def _carry_out(self, key: str, body: bytes) -> tuple[int, bytes]:
        objects = self.server.objects
        match self.command:
            case "PUT":
                objects[key] = body
                return 200, b""
            case "DELETE":
                objects.pop(key, None)
                return 204, b""
        if key not in objects:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>"
        if given := self.headers.get("Range"):
            first, _, last = given.removeprefix("bytes=").partition("-")
            return 206, objects[key][int(first) : int(last) + 1]
        return 200, objects[key]

    def _wait(self, when: str) -> None:
        if held := self.server.held.pop((self.command, when), None):
            held.reached.set()
            held.go.wait(60)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')  # noqa: S324 - as S3 does
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            size = len(self.server.objects[unquote(self.path).removeprefix(FOLDER)])
            self.send_header("Content-Range", f"bytes {first}-{min(int(last), size - 1)}/{size}")
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)
