"""Random conversations in the known shapes, and a plain model of their windows.

A message of the model says what it is: who speaks, which tools it calls, whose results it has. ``written`` writes it in a shape. The
model never sees what the database derives from that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

__all__ = ["SHAPES", "Message", "conversation", "left_out", "needs", "window"]

Data = dict[str, Any]


class Message(msgspec.Struct, kw_only=True):
    """A message, independent of its shape."""

    role: str
    tokens: int
    calls: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    reasons: bool = False
    text: str = ""


def _chat(message: Message) -> Data:
    if message.results:
        return {"role": "tool", "tool_call_id": message.results[0], "content": message.text}
    data: Data = {"role": message.role, "content": message.text}
    if message.calls:
        data["tool_calls"] = [
            {"id": call, "type": "function", "function": {"name": "f", "arguments": "{}"}} for call in message.calls
        ]
    return data


def _functions(message: Message) -> Data:
    if message.results:
        return {"role": "function", "name": message.results[0], "content": message.text}
    data: Data = {"role": message.role, "content": message.text}
    if message.calls:
        data["function_call"] = {"name": message.calls[0], "arguments": "{}"}
    return data


def _responses(message: Message) -> Data:
    if message.reasons:
        return {"type": "reasoning", "id": f"rs_{message.text}", "summary": []}
    if message.results:
        return {"type": "function_call_output", "call_id": message.results[0], "output": message.text}
    if message.calls:
        return {
            "type": "function_call",
            "id": f"fc_{message.text}",
            "call_id": message.calls[0],
            "name": "f",
            "arguments": "{}",
        }
    if message.role == "user":
        return {"role": "user", "content": message.text}
    content = [{"type": "output_text", "text": message.text, "annotations": []}]
    return {"type": "message", "id": f"msg_{message.text}", "role": "assistant", "content": content}


def _anthropic(message: Message) -> Data:
    if message.reasons:
        return {"role": "assistant", "content": [{"type": "thinking", "thinking": message.text, "signature": "x"}]}
    if message.results:
        blocks = [{"type": "tool_result", "tool_use_id": call, "content": message.text} for call in message.results]
        return {"role": "user", "content": blocks}
    if message.role == "user":
        return {"role": "user", "content": message.text}
    uses = [{"type": "tool_use", "id": call, "name": "f", "input": {}} for call in message.calls]
    return {"role": "assistant", "content": [{"type": "text", "text": message.text}, *uses]}


def _langchain(message: Message) -> Data:
    if message.results:
        return {
            "type": "tool",
            "data": {"type": "tool", "content": message.text, "tool_call_id": message.results[0]},
        }
    kind = {"user": "human", "assistant": "ai"}[message.role]
    data: Data = {"type": kind, "content": message.text, "additional_kwargs": {}}
    if message.calls:
        data["tool_calls"] = [{"name": "f", "args": {}, "id": call, "type": "tool_call"} for call in message.calls]
    return {"type": kind, "data": data}


def _langchain_dumped(message: Message) -> Data:
    name = "ToolMessage" if message.results else {"user": "HumanMessage", "assistant": "AIMessage"}[message.role]
    inner = _langchain(message)["data"]
    del inner["type"]
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", name], "kwargs": inner}


SHAPES: dict[str, Callable[[Message], Data]] = {
    "chat": _chat,
    "functions": _functions,
    "responses": _responses,
    "anthropic": _anthropic,
    "langchain": _langchain,
    "langchain dumped": _langchain_dumped,
}
_REASONING = {"responses", "anthropic"}
_SEVERAL_CALLS = {"chat", "anthropic", "langchain", "langchain dumped"}


def conversation(rng: random.Random, shape: str, length: int) -> list[Message]:
    """Make a conversation with late, interleaved, repeated and missing results, results without a call, and ids used again."""
    messages: list[Message] = []
    open_calls: list[str] = []
    done: list[str] = []
    while len(messages) < length:
        text = str(len(messages))
        tokens = rng.choice([1, 5, 20, 100])
        kind = rng.random()
        if kind < 0.2:
            messages.append(Message(role="user", tokens=tokens, text=text))
        elif kind < 0.35:
            messages.append(Message(role="assistant", tokens=tokens, text=text))
        elif kind < 0.45 and shape in _REASONING:
            messages.append(Message(role="assistant", tokens=tokens, text=text, reasons=True))
        elif kind < 0.65:
            count = rng.choice([1, 1, 2, 3]) if shape in _SEVERAL_CALLS else 1
            ids = rng.sample(range(6), count) if rng.random() < 0.3 else [text] * 1
            calls = tuple(f"call_{i}" for i in ids)
            open_calls += calls
            messages.append(Message(role="assistant", tokens=tokens, text=text, calls=calls))
        else:
            source = open_calls if rng.random() < 0.8 else done if rng.random() < 0.8 else ["call_unknown"]
            if not source:
                continue
            count = min(rng.choice([1, 1, 3]), len(source)) if shape == "anthropic" else 1
            results = tuple(sorted(rng.sample(source, count)))
            results = tuple(dict.fromkeys(results))
            for call in results:
                if call in open_calls:
                    open_calls.remove(call)
                    done.append(call)
            messages.append(Message(role="tool", tokens=tokens, text=text, results=results))
    return messages


def _call_of(messages: list[Message], at: int, call: str) -> int | None:
    return next((i for i in range(at - 1, -1, -1) if call in messages[i].calls), None)


def _reasoning_of(messages: list[Message], at: int, *, tagged: Callable[[Message], bool]) -> int | None:
    """Return the reasoning that a message of the model belongs to: the nearest, with nothing but the model's in between."""
    if not tagged(messages[at]):
        return None
    if messages[at].reasons:
        return at - 1 if at and messages[at - 1].reasons else None
    for i in range(at - 1, -1, -1):
        if messages[i].reasons:
            return i
        if not tagged(messages[i]):
            return None
    return None


def needs(messages: list[Message], shape: str) -> list[set[int]]:
    """Return, for each message, the messages that it is nothing without."""

    def of_model(message: Message) -> bool:
        return shape in _REASONING and message.role == "assistant"

    found: list[set[int]] = []
    for at, message in enumerate(messages):
        wanted = {_call_of(messages, at, call) for call in message.results} | {
            _reasoning_of(messages, at, tagged=of_model)
        }
        found.append({i for i in wanted if i is not None})
    return found


def window(
    messages: list[Message], needed: list[set[int]], *, last: int | None, turns: int | None, tokens: int | None
) -> int:
    """Return where the longest window begins: try each beginning, the earliest first."""

    def holds(start: int, *, turn: bool) -> bool:
        inside = messages[start:]
        return (
            all(i >= start for wants in needed[start:] for i in wants)
            and (last is None or len(inside) <= last)
            and (turns is None or sum(m.role == "user" for m in inside) <= turns)
            and (tokens is None or sum(m.tokens for m in inside) <= tokens)
            and (not turn or start == 0 or messages[start].role == "user")
        )

    begins = range(len(messages))
    if turns is not None:
        start = next((s for s in begins if holds(s, turn=True)), None)
        if start is not None:
            return start
    return next((s for s in begins if holds(s, turn=False)), len(messages))


def left_out(messages: list[Message], shape: str, start: int) -> set[int]:
    """Return what a complete window leaves out: what a model refuses, again and again until nothing more is refused."""
    needed = needs(messages, shape)
    out: set[int] = set()
    while True:
        refused = {
            at for at in range(start, len(messages)) if at not in out and _refused(messages, needed, at, out, start)
        }
        if not refused:
            return out
        out |= refused


def _refused(messages: list[Message], needed: list[set[int]], at: int, out: set[int], start: int) -> bool:
    message = messages[at]
    after = [i for i in range(at + 1, len(messages)) if i not in out]
    unanswered = any(
        not any(call in messages[i].results and _call_of(messages, i, call) == at for i in after)
        for call in message.calls
    )
    orphan = any(
        (found := _call_of(messages, at, call)) is None or found in out or found < start for call in message.results
    )
    unfollowed = message.reasons and not any(at in needed[i] and messages[i].role == "assistant" for i in after)
    return unanswered or orphan or unfollowed or any(i in out for i in needed[at])


def entries(messages: Iterable[Message], shape: str) -> list[dict[str, Any]]:
    """Return messages as entries of a log."""
    return [{"data": SHAPES[shape](message), "tokens": message.tokens} for message in messages]
