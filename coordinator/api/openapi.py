"""The OpenAPI document, generated from the operations, and a self-contained page that shows it."""

from __future__ import annotations

import html
import inspect
import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, get_args, get_origin
from uuid import UUID

import msgspec

from coordinator.api import transfers
from coordinator.api.endpoint import Endpoint, HttpDuration, endpoint_of, endpoints
from coordinator.api.problems import MEDIA_TYPE, Problem
from coordinator.api.subscriptions import EventPage, EventQuery, StreamQuery
from coordinator.model.agent_ref import takes_agent
from coordinator.model.artifact import Artifact
from coordinator.model.catalogue import LIMITS
from coordinator.model.operation import Shape
from coordinator.model.password import takes_password
from coordinator.operations import artifacts
from coordinator.version import version

__all__ = ["document", "encoded", "page", "schema_hook"]

_REF = "#/components/schemas/{name}"
_READ_ERRORS = (400, 401, 403, 404, 408, 409, 422, 500, 503)
_WRITE_ERRORS = (400, 401, 403, 404, 408, 409, 413, 415, 422, 500, 503)
_MEANINGS = {
    206: "The bytes of the range.",
    304: "The version is still that of If-None-Match.",
    400: "The request cannot be read.",
    401: "The token is missing or not valid.",
    403: "The token may not do this.",
    404: "The object does not exist.",
    408: "The wait timed out.",
    409: "Another client was first; read again and decide again.",
    412: "The version is not the one that If-Match or If-None-Match requires.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    416: "The range begins beyond the end.",
    422: "A value is malformed or exceeds a limit; nothing was changed.",
    500: "A bug of the daemon.",
    503: "Overloaded, shutting down, or without its database; try again after Retry-After.",
}
_GIVEN = {  # with any request
    "traceparent": "The trace (W3C Trace Context) that the request continues; one that is not valid is ignored.",
    "tracestate": "Data of tracers; ignored without a traceparent, and if it exceeds 512 characters.",
    "X-Request-ID": "1 to 128 letters, digits or ._~:/+=@-: the id of the request in the log; without a valid one, the daemon makes one.",
}
_SENT: dict[str, tuple[str, dict[str, Any]]] = {  # with responses
    "Accept-Ranges": ("bytes: ranges of the content can be read.", {"type": "string"}),
    "Content-Disposition": ("The name under which to save the content.", {"type": "string"}),
    "Content-Range": ("The range of bytes in the response; after 416, the total number of bytes.", {"type": "string"}),
    "ETag": ("The version.", {"type": "string"}),
    "Event-Cursor": ("The cursor of the event log at which the snapshot was taken.", {"type": "string"}),
    "Idempotency-Replayed": (
        "true: this is the recorded response of an earlier request with the same Idempotency-Key.",
        {"type": "string", "enum": ["true"]},
    ),
    "Position": ("The position of the write, for at_least; absent if it changed nothing.", {"type": "string"}),
    "Replica-Lag": (
        "Maximum lag, in seconds, of the replica that served the response; absent if the primary served it.",
        {"type": "number"},
    ),
    "Repr-Digest": ("The SHA-256 of the whole content, as sha-256=:BASE64:.", {"type": "string"}),
    "Retry-After": ("Seconds after which to try again.", {"type": "integer"}),
    "WWW-Authenticate": ("Bearer, and why the token is not sufficient.", {"type": "string"}),
    "X-Request-ID": ("The id of the request, which lines of the log have.", {"type": "string"}),
}
_OF_STATUS = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    416: ("Content-Range",),
    503: ("Retry-After",),
}
_FAILED = 400
_UNCHANGED = ("ETag", "Event-Cursor")  # what 304 has of 200
_AGENT = "5c6d032f-ca00-44ad-a17a-cf72f2a0acf7"
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
)  # optional
_EXAMPLES: dict[str, Any] = {
    "ageing": "1m",
    "agent": _AGENT,
    "artifact": "build/42/report.html",
    "amount": 1250,
    "body": "Write tests first.",
    "budget": "dollars",
    "chunks": ["The answer is "],
    "clears": ["COMPLETED"],
    "cron": "nightly",
    "data": "SGVsbG8=",
    "delay": "10m",
    "directive": 17,
    "entries": [{"data": {"role": "user", "content": "Hello"}}],
    "error": "The disk is full.",
    "fence": 42,
    "fences": [42],
    "export": "0" * 32,
    "hash": "0" * 64,
    "job": "01a21570-1a45-7137-9a27-674406639871",
    "jobs": [{"type": "summarize", "payload": {"page": 7}}],
    "key": "build/42/COMPLETED",
    "kind": "note",
    "lesson": "Run the migrations before the tests.",
    "memory": "0d24c3e58b54b4760f452ca0fa29a15a",
    "lines": [{"format": "coordinator-project", "version": 1, "export": "0" * 32}],
    "name": "coder-1",
    "password": "correct horse battery staple",
    "number": 1,
    "paths": "caseless",
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
    "status": "done",
    "subject": "log",
    "step": "fetch",
    "to_role": "coder",
    "token": 42,
    "tokens": [42],
    "ttl": "5m",
    "type": "custom.build_finished",
    "username": "ada",
    "value": {"files": 3},
    "when_set": "REJECTED",
    "conditions": [{"verb": "assert_signal", "key": "build/42/COMPLETED", "version": 0}],
    "writes": [{"verb": "signal_set", "key": "build/42/COMPLETED", "value": {"files": 3}, "ttl": "1h"}],
}


@cache
def encoded() -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(document())


def document() -> dict[str, Any]:
    """Return the document. It takes half a second, so it is made when somebody asks for it."""
    found = endpoints()
    types: list[Any] = [Problem, EventPage]
    types += [endpoint.parameters for endpoint in found if not endpoint.operation.reads]
    types += [endpoint.result for endpoint in found]
    refs, components = msgspec.json.schema_components(types, schema_hook=schema_hook, ref_template=_REF)
    schema_of = dict(zip([repr(kind) for kind in types], refs, strict=True))
    paths: dict[str, Any] = {}
    for endpoint in found:
        if endpoint.operation.reads_log:
            continue
        shown = _read(endpoint, schema_of) if endpoint.operation.reads else _write(endpoint, schema_of)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = {
            "operationId": endpoint.operation.function,
            "tags": [endpoint.path.split("/")[2]],
            **_words(endpoint.operation),
            **shown,
        }
    paths["/v1/events"] = {"get": _events(schema_of[repr(EventPage)])}
    paths["/v1/events/stream"] = {"get": _stream()}
    paths[transfers.PATH] = _transfers(schema_of)
    for described in paths.values():
        described["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in _GIVEN]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "coordinator",
            "version": version(),
            "summary": "The coordination plane for fleets of AI agents, on nothing but PostgreSQL.",
            "description": (
                "Write durations as a number of seconds, as 30s, 5m, 1h30m or 7d, or in ISO 8601. Errors are problem+json (RFC 9457). "
                "A list's cursor leads to its next page, or after a wait to the rows that come; event_cursor leads into the event stream without a gap."
            ),
        },
        "paths": dict(sorted(paths.items())),
        "security": [{"token": []}, {}],
        "components": {
            "schemas": components,
            "responses": _problems(),
            "parameters": {name: _header(name, text) for name, text in _GIVEN.items()},
            "headers": {name: {"description": text, "schema": schema} for name, (text, schema) in _SENT.items()},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, coo_…; none where access is open.",
                }
            },
        },
    }


@cache
def page() -> bytes:
    """Return the document as a readable page, in HTML."""
    shown = document()
    parts = [_HEAD.format(title=f"coordinator {version()}", text=_text(shown["info"]["description"]))]
    rows = [f"<tr><td><code>{name}</code><td>request<td>{_text(text)}" for name, text in _GIVEN.items()]
    rows += [f"<tr><td><code>{name}</code><td>response<td>{_text(text)}" for name, (text, _) in _SENT.items()]
    parts.append(f"<details><summary>Headers</summary><table>{''.join(rows)}</table></details>")
    for path, methods in shown["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                parts.append(_operation(path, method, operation))
    parts.append("<h2>Schemas</h2>")
    for name, schema in sorted(shown["components"]["schemas"].items()):
        parts.append(
            f'<details id="{name}"><summary><code>{name}</code> {_text(schema.get("description", ""))}</summary>'
            f"{_properties(schema)}</details>"
        )
    return "\n".join([*parts, "</main>"]).encode()


def _read(endpoint: Endpoint, schema_of: dict[str, Any]) -> dict[str, Any]:
    parameters = _query_of(endpoint.parameters, endpoint.parameter, {"after", "limit"} if endpoint.pages else set())
    if endpoint.pages:
        (limit,) = (field for field in msgspec.structs.fields(endpoint.parameters) if field.name == "limit")
        rows = {"type": "integer", "minimum": 1, "maximum": LIMITS["page"], "default": limit.default}
        parameters.append(_parameter("limit", rows, "Rows of one page."))
        parameters.append(_parameter("after", {"type": "string"}, "The cursor of the previous page."))
        parameters.append(_parameter("max_lag", _DURATION, "Let the replica respond if its data is at most this old."))
    if endpoint.operation.woken_by:
        parameters.append(_parameter("wait", _DURATION, "Wait up to this long for a result that is not empty."))
    parameters.append(_parameter("at_least", {"type": "string"}, "A position: wait until the response includes it."))
    result = schema_of[repr(endpoint.result)]
    headers = ["Event-Cursor"]
    errors = list(_READ_ERRORS)
    if endpoint.shape is Shape.MANY:
        headers = ["Replica-Lag"] if endpoint.pages else []
        result = _object(
            items={"type": "array", "items": result},
            cursor={"type": ["string", "null"]},
            event_cursor={"type": "string"},
        )
    elif endpoint.shape is Shape.SCALAR:
        result = _object(result=result)
    elif endpoint.operation.versioned:
        headers.append("ETag")
        parameters.append(_header("If-None-Match", "An ETag: no body if the version is still the same."))
        errors.append(304)
    responses = _responses(result, headers, errors)
    if endpoint.operation.grows:
        parameters.append(_header("Last-Event-ID", "With Accept: text/event-stream, continue after this id."))
        responses["200"]["content"]["text/event-stream"] = {
            "schema": {"type": "string"},
            "example": 'id: WyJqb2Jfb3V0cHV0IiwiMSJd\ndata: {"seq": 1}\n\n',
        }
        responses["204"] = {"description": "The stream resumed after its end.", "headers": _sent(())}
    return {"parameters": parameters, "responses": responses}


def _write(endpoint: Endpoint, schema_of: dict[str, Any]) -> dict[str, Any]:
    parameters = (
        [_parameter("wait", _DURATION, "Wait up to this long for a result.")] if endpoint.operation.woken_by else []
    )
    parameters += [_header("Idempotency-Key", "A repeated request with the same key gets the recorded response.")]
    errors = list(_WRITE_ERRORS)
    if endpoint.operation.conditional:
        parameters.append(_header("If-Match", 'An ETag: write only at this version, like "expect".'))
        parameters.append(_header("If-None-Match", '*: write only if it does not exist, like "expect": 0.'))
        errors.append(412)
    result = schema_of[repr(endpoint.result)]
    if endpoint.shape is Shape.MANY:
        result = _object(items={"type": "array", "items": result})
    elif endpoint.shape is Shape.SCALAR:
        result = _object(result=result)
    content = {"schema": schema_of[repr(endpoint.parameters)], "example": _example(endpoint)}
    body = {"required": True, "content": {"application/json": content}}
    headers = ["Position", "Idempotency-Replayed", *(["ETag"] if endpoint.operation.versioned else [])]
    return {"parameters": parameters, "requestBody": body, "responses": _responses(result, headers, errors)}


def _example(endpoint: Endpoint) -> dict[str, Any]:
    """Return a body with what is required, and the optional fields that most callers want."""
    examples = {**_EXAMPLES, **endpoint.operation.examples}
    return {
        field.name: "coder-1"
        if field.name == "agent" and _takes_text(field.type)
        else examples.get(field.name, _value(field.type))
        for field in msgspec.structs.fields(endpoint.parameters)
        if field.required or field.name in (*_WANTED, *endpoint.operation.examples)
    }


def _takes_text(type: Any) -> bool:
    return str in (type, *get_args(type))


def _value(type: Any) -> Any:
    """Return a value of a type."""
    members = {get_origin(member) or member for member in (type, *get_args(type))}
    if UUID in members and list not in members:
        return str(UUID(int=0))
    for kind, value in ((list, []), (dict, {}), (bool, True), (int, 1), (float, 1.5), (HttpDuration, "30s")):
        if kind in members:
            return value
    return "text"


def _events(schema: Any) -> dict[str, Any]:
    return {
        "operationId": "events_since",
        "tags": ["events"],
        "summary": "Read the log after a cursor; wait for the first event if there is none.",
        "parameters": [*_query_of(EventQuery), _parameter("wait", _DURATION, "Wait up to this long for an event.")],
        "responses": _responses(schema, [], _READ_ERRORS),
    }


def _transfers(schema_of: dict[str, Any]) -> dict[str, Any]:
    """Describe an artifact as a stream: its two methods."""
    named = _query_of(endpoint_of(artifacts.Show).parameters, "artifact")
    put = {
        "operationId": "artifact_upload",
        "tags": ["artifacts"],
        "summary": "Store the body as an artifact; it replaces one with the same name.",
        "description": "At most 64 MiB, with a length or chunked; Content-Type is the media type. Readers see it when it is complete and verified.",
        "parameters": [
            *named,
            _parameter(
                "sha256", {"type": "string", "pattern": "^[0-9a-f]{64}$"}, "The SHA-256 that the body must have."
            ),
            _header("Repr-Digest", "The same as sha-256=:BASE64:; Content-Digest and Digest are also accepted."),
            _header("If-Match", "An ETag: store it only in place of this content."),
            _header("If-None-Match", "*: store it only if there is no artifact of this name."),
        ],
        "requestBody": {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
        "responses": _responses(schema_of[repr(Artifact)], ["Position", "ETag"], (*_WRITE_ERRORS, 412)),
    }
    read = [
        *named,
        _parameter("at_least", {"type": "string"}, "A position: wait until the response includes it."),
        *(_header(name, text) for name, text in _OF_DOWNLOADS.items()),
    ]
    get = {
        "operationId": "artifact_download",
        "tags": ["artifacts"],
        "summary": "Read the bytes of an artifact, or a range of them.",
        "parameters": [*read, *(_header(name, text) for name, text in _OF_RANGES.items())],
        "responses": _responses({}, _OF_CONTENT, (*_READ_ERRORS, 206, 304, 412, 416), "*/*"),
    }
    head = {
        **get,
        "operationId": "artifact_head",
        "summary": "Read the size, type and hash of an artifact, without its bytes.",
        "parameters": read,
        "responses": _responses({}, _OF_CONTENT, (*_READ_ERRORS, 304, 412), "*/*"),
    }
    return {"put": put, "get": get, "head": head}


_OF_CONTENT = ("ETag", "Accept-Ranges", "Content-Disposition", "Repr-Digest")
_OF_RANGES = {
    "Range": "bytes=FIRST-LAST: a part of the content; several ranges get the whole content.",
    "If-Range": "An ETag: the whole content if it has changed.",
}
_OF_DOWNLOADS = {
    "If-Match": "An ETag: 412 if the content has changed.",
    "If-None-Match": "An ETag: no body if the content has not changed.",
}


def _stream() -> dict[str, Any]:
    return {
        "operationId": "event_stream",
        "tags": ["events"],
        "summary": "Follow events as Server-Sent Events.",
        "description": (
            "The first frame is ready. Events follow: id is the cursor, event the type, data the event. reset means that "
            "events are lost: take a new snapshot. bye is the last frame and says why. An id without data only moves the cursor."
        ),
        "parameters": [
            *_query_of(StreamQuery),
            _header("Last-Event-ID", "The cursor to continue from; overrides after."),
        ],
        "responses": _responses({"type": "string"}, [], _READ_ERRORS, "text/event-stream"),
    }


def _responses(
    schema: Any, headers: Iterable[str], errors: Iterable[int], media_type: str = "application/json"
) -> dict[str, Any]:
    content = {media_type: {"schema": schema}}
    unchanged = [name for name in headers if name in _UNCHANGED]
    own = {
        200: {"description": "Success.", "headers": _sent(headers), "content": content},
        206: {"description": _MEANINGS[206], "headers": _sent((*headers, "Content-Range")), "content": content},
        304: {"description": _MEANINGS[304], "headers": _sent(unchanged)},
    }
    return {
        str(status): own.get(status, {"$ref": f"#/components/responses/{status}"}) for status in sorted((200, *errors))
    }


def _problems() -> dict[str, Any]:
    """Describe the responses that operations share."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}}
    return {
        str(status): {"description": text, "headers": _sent(_OF_STATUS.get(status, ())), "content": content}
        for status, text in _MEANINGS.items()
        if status >= _FAILED
    }


def _sent(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, "X-Request-ID")}


def _query_of(
    type: Any, in_path: str | None = None, hidden: set[str] | frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    parameters = []
    for field in msgspec.structs.fields(type):
        if field.name in hidden or field.name == "wait":
            continue
        schema = _without_null(msgspec.json.schema(field.type, schema_hook=schema_hook))
        if field.default not in (msgspec.NODEFAULT, None) and isinstance(field.default, str | int | bool):
            schema = {**schema, "default": field.default}
        if field.name == "embedding":
            schema = _EMBEDDING
        where = "path" if field.name == in_path else "query"
        required = where == "path" or field.required
        parameters.append({"name": field.name, "in": where, "required": required, "schema": schema})
    return parameters


_DURATION = {"type": "string", "examples": ["30s"]}
_EMBEDDING = {
    "type": "string",
    "description": "Numbers with commas; or f32: and numbers in single precision, little-endian, in base64.",
    "examples": ["0.12,-0.9,0.3"],
}


def schema_hook(type: Any) -> dict[str, Any]:
    """Describe the types that msgspec does not know."""
    if takes_agent(type):
        return {"type": "string", "description": "The name or the id of an agent.", "examples": ["coder-1"]}
    if takes_password(type):
        return {"type": "string", "format": "password", "writeOnly": True, "examples": [_EXAMPLES["password"]]}
    if type is not HttpDuration:
        raise NotImplementedError
    return {
        "type": ["string", "number"],
        "description": "Seconds, a form like 1h30m, or ISO 8601.",
        "examples": ["30s"],
    }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    left = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    return left[0] if len(left) == 1 else schema


def _parameter(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _header(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": sorted(properties), "properties": properties}


def _words(operation: Any) -> dict[str, str]:
    summary, _, description = inspect.cleandoc(operation.__doc__ or "").partition("\n\n")
    return {"summary": " ".join(summary.split()), **({"description": description} if description else {})}


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{html.escape(shown['name'])}</code><td>{shown['in']}{' *' if shown['required'] else ''}"
        f"<td>{_type(shown['schema'])}<td>{_text(shown.get('description', ''))}"
        for shown in operation["parameters"]
    ]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    body, example = content.get("schema", {}), json.dumps(content.get("example"))
    statuses = ", ".join(operation["responses"])
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{html.escape(path)}</code> {_text(operation['summary'])}"
        f"</summary><pre>{_text(operation.get('description', ''))}</pre>"
        + (f"<table>{''.join(rows)}</table>" if rows else "")
        + (f"<p>Body: {_type(body)}, such as <code>{html.escape(example)}</code></p>" if body else "")
        + "".join(
            f"<p>Response: {_type(content['schema'])}</p>"
            for content in operation["responses"]["200"]["content"].values()
        )
        + f"<p>Status: {statuses}</p></details>"
    )


def _text(text: str) -> str:
    """Return the HTML of a text, with its names in double backticks as code."""
    return re.sub(r"``(.+?)``", r"<code>\1</code>", html.escape(text))


def _properties(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = [
        f"<tr><td><code>{html.escape(name)}</code>{' *' if name in required else ''}<td>{_type(shown)}"
        for name, shown in schema.get("properties", {}).items()
    ]
    return f"<table>{''.join(rows)}</table>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if schema.get("type") == "array" and "items" in schema:
        return f"list of {_type(schema['items'])}"
    if schema.get("properties"):
        return ", ".join(f"<code>{name}</code>: {_type(shown)}" for name, shown in schema["properties"].items())
    kinds = schema.get("type", "any")
    return html.escape(" or ".join(kinds) if isinstance(kinds, list) else kinds)


_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}
details {{ border-top: 1px solid #8884; padding: .4rem 0 }}
summary {{ cursor: pointer }}
td {{ padding: 0 1rem 0 0; vertical-align: top }}
pre {{ white-space: pre-wrap; font: inherit }}
</style>
<main><h1>{title}</h1>
<p>{text}</p>
<p><a href="/schema/openapi.json">openapi.json</a></p>"""
