"""Calls of tools whose envelope the SDK has accepted before: they go directly to the tool.

The envelope of a call is everything besides its arguments: the headers and the version of the protocol, the client's
name and its capabilities. A client repeats it with each call, and the SDK takes longer to check it than the call itself
takes. So an envelope that the SDK has accepted is remembered, with what the SDK added to the result. The next call of
the same tool with the same envelope gets the same additions.

Everything else is left to the SDK: the first call, other methods, the older version of the protocol, progress, traces,
and malformed requests.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from coordinator.mcp.tools import TOOLS, WAITING, ToolResult

__all__ = ["Envelopes", "RepeatedCall", "repeated_call"]

MOST = 500
ENVELOPE_BYTES = 4096  # larger envelopes are not remembered
_OURS = frozenset(
    {"content", "structuredContent", "isError"}
)  # parts of a result that tools return; the SDK adds the others

_Headers = Sequence[tuple[bytes, bytes]]


class _Parameters(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    meta: msgspec.Raw = msgspec.field(name="_meta")
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class _ToolRequest(msgspec.Struct, forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    id: int | str
    method: Literal["tools/call"]
    params: _Parameters


class RepeatedCall(msgspec.Struct, frozen=True):
    """A call that may be a repeated one: its id as JSON, its tool, the arguments, and the envelope."""

    id: bytes
    tool: str
    arguments: dict[str, Any]
    envelope: tuple[object, ...]

    def response(self, result: ToolResult, added: bytes) -> bytes:
        """Return the response with a result and the parts in ``added``."""
        return (
            b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":%b}],"structuredContent":%b,"isError":%b%b}}'
            % (
                self.id,
                msgspec.json.encode(result.text),
                result.structured,
                b"true" if result.is_error else b"false",
                added,
            )
        )


def repeated_call(headers: _Headers, body: bytes) -> RepeatedCall | None:
    """Read a request; return None if only the SDK understands it."""
    try:
        request = _decode(body)
        arguments = json.loads(bytes(request.params.arguments))  # parsed as the SDK parses them
    except (ValueError, RecursionError):
        return None
    name, meta = request.params.name, bytes(request.params.meta)
    spoken = tuple([header for header in headers if _spoken(header[0])])
    size = len(meta) + sum([len(name) + len(value) for name, value in spoken])
    if not isinstance(arguments, dict) or name not in TOOLS or name in WAITING or size > ENVELOPE_BYTES:
        return None
    return RepeatedCall(msgspec.json.encode(request.id), name, arguments, (name, meta, spoken))


def _spoken(header: bytes) -> bool:
    """Return whether a header belongs to the protocol."""
    return header.startswith(b"mcp-") or header in (b"accept", b"content-type")


class Envelopes:
    """Remembers the most recently used envelopes."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def added(self, call: RepeatedCall) -> bytes | None:
        """Return what the SDK adds to the result of a call, or None if it has not accepted the envelope yet."""
        added = self._known.get(call.envelope)
        if added is not None:
            self._known.move_to_end(call.envelope)
        return added

    def learn(self, call: RepeatedCall, messages: Iterable[Any]) -> None:
        """Remember the envelope of a call if the SDK has responded with a result."""
        start, *rest = messages
        if start.get("status") != 200 or (b"content-type", b"application/json") not in start["headers"]:
            return
        try:
            result = json.loads(b"".join([message["body"] for message in rest]))["result"]
        except (ValueError, KeyError):
            return
        added = {name: value for name, value in result.items() if name not in _OURS}
        self._known[call.envelope] = b"".join(
            [b",%b:%b" % (msgspec.json.encode(name), msgspec.json.encode(value)) for name, value in added.items()]
        )
        while len(self._known) > MOST:
            self._known.popitem(last=False)


_decode = msgspec.json.Decoder(_ToolRequest).decode
