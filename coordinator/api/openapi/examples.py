"""Examples of bodies."""

from __future__ import annotations

from typing import Any, get_args

from coordinator.api.endpoint import Endpoint
from coordinator.model.fields import fields_of

__all__ = ["EXAMPLES", "example"]

# Optional fields that most callers want.
_WANTED = (
    "ttl",
    "to_role",
    "role",
    "status",
    "conditions",
    "ageing",
    "payload",
    "percent",
    "result",
    "budget",
    "period",
    "title",
    "context",
    "tool_name",
)
EXAMPLES: dict[str, Any] = {
    "ageing": "1m",
    "agent": "5c6d032f-ca00-44ad-a17a-cf72f2a0acf7",
    "amount": 1250,
    "artifact": "build/42/report.html",
    "body": "Write tests first.",
    "budget": "dollars",
    "chunks": ["The answer is "],
    "clears": ["COMPLETED"],
    "conditions": [{"verb": "assert_signal", "key": "build/42/COMPLETED", "version": 0}],
    "cron": "nightly",
    "data": "SGVsbG8=",
    "delay": "10m",
    "directive": 17,
    "entries": [{"data": {"role": "user", "content": "Hello"}}],
    "error": "The disk is full.",
    "export": "0" * 32,
    "fence": 42,
    "fences": [42],
    "hash": "0" * 64,
    "job": "01a21570-1a45-7137-9a27-674406639871",
    "jobs": [{"type": "summarize", "payload": {"page": 7}}],
    "key": "build/42/COMPLETED",
    "kind": "note",
    "lesson": "Run the migrations before the tests.",
    "lines": [{"format": "coordinator-project", "version": 1, "export": "0" * 32}],
    "memory": "0d24c3e58b54b4760f452ca0fa29a15a",
    "name": "coder-1",
    "number": 1,
    "password": "correct horse battery staple",
    "payloads": "pointer",
    "percent": 50,
    "period": "day",
    "prefix": "coo_1a2b",
    "project": "shop",
    "queue": "builds",
    "reason": "The plan changed.",
    "resource": "src/app.py",
    "resources": ["src/app.py"],
    "result": {"words": 812},
    "role": "agent",
    "session": "review-42",
    "slots": 1,
    "status": "done",
    "step": "fetch",
    "subject": "log",
    "ticket": 1,
    "to_role": "coder",
    "token": 42,
    "tokens": [42],
    "ttl": "5m",
    "type": "custom.build_finished",
    "upload": "00000000-0000-0000-0000-000000000000",
    "username": "ada",
    "value": {"files": 3},
    "webhook": 1,
    "when_set": "REJECTED",
    "writes": [{"verb": "signal_set", "key": "build/42/COMPLETED", "value": {"files": 3}, "ttl": "1h"}],
}
"""Values of fields by their names; an operation overrides them with its own ``examples``."""


def example(endpoint: Endpoint) -> dict[str, Any]:
    """Return a body with what is required, and the optional fields that most callers want."""
    examples = {**EXAMPLES, **endpoint.operation.examples}
    return {
        field.name: "coder-1" if field.name == "agent" and _takes_text(field.type) else examples[field.name]
        for field in fields_of(endpoint.parameters)
        if field.required or field.name in (*_WANTED, *endpoint.operation.examples)
    }


def _takes_text(type: Any) -> bool:
    return str in (type, *get_args(type))
