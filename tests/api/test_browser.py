"""The streams of a real browser resume when the server is back: EventSource, and examples/follow.js with a token."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from coordinator.db.database import Database
from coordinator.model.token import new_secret
from coordinator.operations import events, tokens
from tests.api.sse import emit
from tests.daemon import Daemon
from tests.http_client import http_client
from tests.ports import reserve_port
from tests.waiting import until

pytestmark = pytest.mark.slow

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGE = """<!doctype html><script>
const seen = [];
const source = new EventSource("/v1/events/stream?project=default&topic=custom.*");
source.addEventListener("ready", () => fetch("/seen/ready"));
source.addEventListener("custom.tick", event => {
  seen.push(JSON.parse(event.data).key);
  fetch("/seen/" + seen.join("-"));
});
</script>"""

FOLLOW = Path(__file__).parents[2] / "examples" / "follow.js"
FOLLOWING = """<!doctype html><script type="module">
import { follow } from "/follow.js";
const seen = [];
try {
  for await (const event of follow("DAEMON", { token: "TOKEN", project: "default", topics: ["custom.*"], after: "start" })) {
    seen.push(event.key);
    fetch("/seen/" + seen.join("-"));
  }
} catch (error) {
  fetch("/seen/refused-" + JSON.parse(error.message).status);
}
</script>"""


class Proxy:
    """One origin for the browser: its page, what the page has seen, and the stream of the daemon that is running."""

    def __init__(self, port: int, page: str) -> None:
        self.port = port
        self.page = page
        self.seen: list[str] = []
        self.resumed: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass  # a browser opens connections ahead, and drops those that it did not need
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1].decode()
        if path.startswith("/v1/"):
            lines = head.decode().split("\r\n")
            self.resumed += [line.partition(": ")[2] for line in lines if line.lower().startswith("last-event-id:")]
            kept = [line for line in lines if not line.lower().startswith(("host:", "origin:", "connection:"))]
            kept[1:1] = [f"Host: 127.0.0.1:{self.port}", "Connection: close"]
            await self._pass(reader, writer, "\r\n".join(kept).encode())
            return
        if path.startswith("/seen/"):
            self.seen.append(path.removeprefix("/seen/"))
        kind, body = b"html", self.page.encode() if path == "/" else b""
        if path == "/follow.js":
            kind, body = b"javascript", FOLLOW.read_bytes()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/%b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            % (kind, len(body))
        )
        writer.write(body)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        try:
            source, sink = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            # Like a proxy in front of a daemon that does not run; a browser stops at any other response.
            writer.transport.abort()
            return
        sink.write(head)
        try:
            while data := await source.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            sink.close()


@asynccontextmanager
async def browsing(port: int, page: str, folder: Path, own_port: int = 0) -> AsyncIterator[Proxy]:
    """Run a browser on a page whose streams go to the daemon at a port."""
    if BROWSER is None:
        pytest.skip("needs chromium: apt-get install chromium")
    proxy = Proxy(port, page)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", own_port)
    browser = None
    try:
        browser = await asyncio.create_subprocess_exec(
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        yield proxy
    finally:
        if browser is not None:
            browser.terminate()
            await browser.wait()
        server.close()


async def test_event_source_resumes_after_the_server_was_killed(database_url: str, tmp_path: Path) -> None:
    port = reserve_port()
    daemon = await Daemon(database_url, port=port).ready()
    try:
        async with browsing(port, PAGE, tmp_path) as proxy:
            await until(lambda: "ready" in proxy.seen, "the browser's stream is ready")
            async with http_client(daemon.url) as http:
                await emit(http, "default", "1", "2")
                await until(lambda: "1-2" in proxy.seen, "the browser has seen two events")
                daemon.kill()
                daemon.__exit__(None, None, None)
                daemon = await Daemon(database_url, port=port).ready()
                await emit(http, "default", "3")
            await until(lambda: "1-2-3" in proxy.seen, "the browser has gone on")
            assert proxy.resumed
    finally:
        daemon.__exit__(None, None, None)


async def test_a_page_with_a_token_follows_with_fetch_resumes_and_learns_that_its_token_ended(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    """The page has another origin than the daemon, whose settings name it."""
    port, page_port = reserve_port(), reserve_port()
    page = FOLLOWING.replace("DAEMON", f"http://127.0.0.1:{port}")
    origins = f"http://127.0.0.1:{page_port}"
    secret = new_secret()
    create = tokens.Create(name="page", role="reader", hash=secret.hash, prefix=secret.prefix, project="default")
    token = await db.run(create)

    async def emit(*keys: str) -> None:
        for key in keys:
            await db.run(events.Emit(project="default", type="custom.tick", key=key))

    daemon = await Daemon(database_url, port=port, access="tokens", origins=origins).ready()
    try:
        async with browsing(port, page.replace("TOKEN", secret.text), tmp_path, page_port) as proxy:
            await emit("1", "2")
            await until(lambda: "1-2" in proxy.seen, "the browser has seen two events")
            daemon.kill()
            daemon.__exit__(None, None, None)
            daemon = await Daemon(database_url, port=port, access="tokens", origins=origins).ready()
            await emit("3")
            await until(lambda: "1-2-3" in proxy.seen, "the browser has gone on")
            await db.run(tokens.Revoke(token=token.id))
            await until(lambda: "refused-401" in proxy.seen, "the page was told")
    finally:
        daemon.__exit__(None, None, None)
