"""A real browser's EventSource goes on where it was when the server comes back."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.api.sse import emit
from tests.daemon import Daemon, until

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


class Proxy:
    """One origin for the browser: its page, what the page has seen, and the stream of whichever daemon is there."""

    def __init__(self, port: int) -> None:
        self.port = port
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
        body = PAGE.encode() if path == "/" else b""
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        )
        writer.write(body)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        try:
            source, sink = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            # As a proxy in front of a daemon that is away; a browser gives up at any other answer.
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


@pytest.mark.skipif(BROWSER is None, reason="needs chromium: apt-get install chromium")
async def test_event_source_resumes_after_the_server_was_killed(database_url: str, tmp_path: Path) -> None:
    assert BROWSER
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    daemon = await Daemon(database_url, port=port).ready()
    browser = None
    try:
        browser = await asyncio.create_subprocess_exec(
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
            f"--user-data-dir={tmp_path}",
            address,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await until(_has(proxy, "ready"), "the browser's stream is ready", deadline_s=40)
        async with httpx.AsyncClient(base_url=daemon.url) as http:
            await emit(http, "default", "1", "2")
            await until(_has(proxy, "1-2"), "the browser has seen two events")
            daemon.kill()
            daemon.__exit__(None, None, None)
            daemon = await Daemon(database_url, port=port).ready()
            await emit(http, "default", "3")
        await until(_has(proxy, "1-2-3"), "the browser has gone on", deadline_s=40)
        assert proxy.resumed
    finally:
        daemon.__exit__(None, None, None)
        if browser is not None:
            browser.terminate()
            await browser.wait()
        server.close()


def _has(proxy: Proxy, what: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return what in proxy.seen

    return look
