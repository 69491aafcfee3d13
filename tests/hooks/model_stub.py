"""The APIs of three makers of models, on loopback: a model that writes two files, one after the other, and then says that it is done.

What it does next follows from the results in the request, so it is the same however often a tool asks. Requests without tools, for
titles and the like, get a text.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Model", "serving"]

Event = tuple[str, dict[str, Any]]


class Model:
    """Writes ``files`` in their order. ``results`` are what the tool said about each, as the model read it."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder = folder
        self.files = files
        self.results: list[str] = []
        self.requests: list[tuple[str, Any]] = []

    def events(self, path: str, body: dict[str, Any]) -> Iterator[Event]:
        self.requests.append((path, body))
        if "/responses" in path:
            return self._openai(body)
        if ":streamGenerateContent" in path or ":generateContent" in path:
            return self._gemini(body)
        return self._anthropic(body)

    def _next(self, results: list[Any], tools: object) -> str | None:
        """Return the file that is written now."""
        if not tools:
            return None
        if len(results) > len(self.results):
            self.results = [one if isinstance(one, str) else json.dumps(one) for one in results]
        return self.files[len(results)] if len(results) < len(self.files) else None

    def _anthropic(self, body: dict[str, Any]) -> Iterator[Event]:
        blocks = [
            block
            for message in body["messages"]
            if isinstance(message["content"], list)
            for block in message["content"]
            if block["type"] == "tool_result"
        ]
        name = self._next([block.get("content") for block in blocks], body.get("tools"))
        usage = {"input_tokens": 1, "output_tokens": 1}
        started = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": []}
        yield "message_start", {"message": {**started, "stop_reason": None, "stop_sequence": None, "usage": usage}}
        if name is None:
            yield "content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}
            yield "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "Done."}}
        else:
            # Copilot speaks to this API as well, with a tool of another name.
            creates = any(tool.get("name") == "create" for tool in body["tools"])
            tool, path, content = ("create", "path", "file_text") if creates else ("Write", "file_path", "content")
            call = {"type": "tool_use", "id": f"toolu_{len(blocks)}", "name": tool, "input": {}}
            arguments = json.dumps({path: str(self.folder / name), content: "written\n"})
            yield "content_block_start", {"index": 0, "content_block": call}
            yield "content_block_delta", {"index": 0, "delta": {"type": "input_json_delta", "partial_json": arguments}}
        yield "content_block_stop", {"index": 0}
        reason = "tool_use" if name else "end_turn"
        yield "message_delta", {"delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
        yield "message_stop", {}

    def _openai(self, body: dict[str, Any]) -> Iterator[Event]:
        ended = [item["output"] for item in body["input"] if item.get("type", "").endswith("_call_output")]
        name = self._next(ended, body.get("tools"))
        item: dict[str, Any] = {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "content": [{"type": "output_text", "text": "Done."}],
        }
        if name is not None:
            patch = f"*** Begin Patch\n*** Add File: {name}\n+written\n*** End Patch"
            item = {"type": "custom_tool_call", "call_id": f"call_{len(ended)}", "name": "apply_patch", "input": patch}
        yield "response.created", {"response": {"id": "resp_1"}}
        yield "response.output_item.done", {"output_index": 0, "item": item}
        usage = {"input_tokens": 1, "input_tokens_details": None, "output_tokens": 1, "output_tokens_details": None}
        yield "response.completed", {"response": {"id": "resp_1", "usage": {**usage, "total_tokens": 2}}}

    def _gemini(self, body: dict[str, Any]) -> Iterator[Event]:
        parts = [part for content in body["contents"] for part in content.get("parts", [])]
        ended = [part["functionResponse"]["response"] for part in parts if "functionResponse" in part]
        name = self._next(ended, body.get("tools"))
        part: dict[str, Any] = {"text": "Done."}
        if name is not None:
            arguments = {"file_path": str(self.folder / name), "content": "written\n"}
            part = {"functionCall": {"name": "write_file", "args": arguments}}
        answer = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
        yield "", {"candidates": [answer], "usageMetadata": {"promptTokenCount": 1, "totalTokenCount": 2}}


class _Handler(BaseHTTPRequestHandler):
    model: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.path.partition("?")[0].endswith(("/count_tokens", ":countTokens")):
            self._send("application/json", json.dumps({"input_tokens": 1, "totalTokens": 1}))
            return
        events = list(self.model.events(self.path, body))
        if ":generateContent" in self.path:
            self._send("application/json", json.dumps(events[0][1]))
            return
        frames = []
        for name, data in events:
            head = f"event: {name}\n" if name else ""
            frames.append(f"{head}data: {json.dumps({'type': name, **data} if name else data)}\n\n")
        self._send("text/event-stream", "".join(frames))

    def do_GET(self) -> None:
        self._send("application/json", json.dumps({"models": [], "data": []}))

    def do_HEAD(self) -> None:
        self._send("text/plain", "")

    def _send(self, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def serving(model: Model) -> Iterator[str]:
    """Serve a model; give the address."""
    handler = type("Handler", (_Handler,), {"model": model})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
