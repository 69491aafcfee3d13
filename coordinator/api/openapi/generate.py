"""The OpenAPI document, generated from the operations."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import msgspec

from coordinator.api import transfers
from coordinator.api.endpoint import Endpoint, HttpDuration, endpoint_of, endpoints
from coordinator.api.openapi.examples import EXAMPLES, example
from coordinator.api.openapi.parts import (
    AT_LEAST,
    DURATION,
    REF,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    header,
    header_refs,
    object_of,
    parameter,
    problems,
    responses,
)
from coordinator.api.problems import Problem
from coordinator.api.subscriptions import EventPage, EventQuery, StreamQuery
from coordinator.model.agent_ref import takes_agent
from coordinator.model.artifact import Artifact
from coordinator.model.catalogue import LIMITS
from coordinator.model.fields import fields_of
from coordinator.model.operation import Shape
from coordinator.model.password import takes_password
from coordinator.operations import artifacts
from coordinator.version import version

__all__ = ["document", "encoded", "schema_hook"]

_READ_ERRORS = (400, 401, 403, 404, 408, 409, 422, 500, 503)
_WRITE_ERRORS = (*_READ_ERRORS, 413, 415)
_EMBEDDING = {
    "type": "string",
    "description": "Numbers with commas; or f32: and numbers in single precision, little-endian, in base64.",
    "examples": ["0.12,-0.9,0.3"],
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
    refs, components = msgspec.json.schema_components(types, schema_hook=schema_hook, ref_template=REF)
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
        described["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in REQUEST_HEADERS]
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
            "responses": problems(),
            "parameters": {name: header(name, text) for name, text in REQUEST_HEADERS.items()},
            "headers": {
                name: {"description": text, "schema": schema} for name, (text, schema) in RESPONSE_HEADERS.items()
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, coo_…; none where access is open.",
                }
            },
        },
    }


def schema_hook(type: Any) -> dict[str, Any]:
    """Describe the types that msgspec does not know."""
    if takes_agent(type):
        return {"type": "string", "description": "The name or the id of an agent.", "examples": ["coder-1"]}
    if takes_password(type):
        return {"type": "string", "format": "password", "writeOnly": True, "examples": [EXAMPLES["password"]]}
    if type is not HttpDuration:
        raise NotImplementedError
    return {
        "type": ["string", "number"],
        "description": "Seconds, a form like 1h30m, or ISO 8601.",
        "examples": ["30s"],
    }


def _read(endpoint: Endpoint, schema_of: dict[str, Any]) -> dict[str, Any]:
    operation = endpoint.operation
    parameters = _query_of(endpoint.parameters, endpoint.parameter, {"after", "limit"} if endpoint.pages else set())
    headers = [] if endpoint.shape is Shape.MANY else ["Event-Cursor"]
    if endpoint.pages:
        headers.append("Replica-Lag")
        (limit,) = (field for field in fields_of(endpoint.parameters) if field.name == "limit")
        rows = {"type": "integer", "minimum": 1, "maximum": LIMITS["page"], "default": limit.default}
        parameters += [
            parameter("limit", "Rows of one page.", rows),
            parameter("after", "The cursor of the previous page."),
            parameter("max_lag", "Let the replica respond if its data is at most this old.", DURATION),
        ]
    if operation.woken_by:
        parameters.append(parameter("wait", "Wait up to this long for a result that is not empty.", DURATION))
    parameters.append(AT_LEAST)
    errors = list(_READ_ERRORS)
    if operation.versioned:
        headers.append("ETag")
        parameters.append(header("If-None-Match", "An ETag: no body if the version is still the same."))
        errors.append(304)
    page = {"cursor": {"type": ["string", "null"]}, "event_cursor": {"type": "string"}}
    described = responses(_result(endpoint, schema_of, **page), headers, errors)
    if operation.grows:
        parameters.append(header("Last-Event-ID", "With Accept: text/event-stream, continue after this id."))
        described["200"]["content"]["text/event-stream"] = {
            "schema": {"type": "string"},
            "example": 'id: WyJqb2Jfb3V0cHV0IiwiMSJd\ndata: {"seq": 1}\n\n',
        }
        described["204"] = {"description": "The stream resumed after its end.", "headers": header_refs(())}
    return {"parameters": parameters, "responses": described}


def _write(endpoint: Endpoint, schema_of: dict[str, Any]) -> dict[str, Any]:
    operation = endpoint.operation
    parameters = [parameter("wait", "Wait up to this long for a result.", DURATION)] if operation.woken_by else []
    parameters.append(header("Idempotency-Key", "A repeated request with the same key gets the recorded response."))
    errors = list(_WRITE_ERRORS)
    if operation.conditional:
        parameters.append(header("If-Match", 'An ETag: write only at this version, like "expect".'))
        parameters.append(header("If-None-Match", '*: write only if it does not exist, like "expect": 0.'))
        errors.append(412)
    content = {"schema": schema_of[repr(endpoint.parameters)], "example": example(endpoint)}
    body = {"required": True, "content": {"application/json": content}}
    headers = ["Position", "Idempotency-Replayed", *(["ETag"] if operation.versioned else [])]
    described = responses(_result(endpoint, schema_of), headers, errors)
    return {"parameters": parameters, "requestBody": body, "responses": described}


def _result(endpoint: Endpoint, schema_of: dict[str, Any], **page: Any) -> Any:
    """Return the schema of a result: the row, or an object with the rows and what else a ``page`` has, or with the value."""
    result = schema_of[repr(endpoint.result)]
    if endpoint.shape is Shape.MANY:
        return object_of(items={"type": "array", "items": result}, **page)
    return object_of(result=result) if endpoint.shape is Shape.SCALAR else result


def _events(schema: Any) -> dict[str, Any]:
    return {
        "operationId": "events_since",
        "tags": ["events"],
        "summary": "Read the log after a cursor; wait for the first event if there is none.",
        "parameters": [*_query_of(EventQuery), parameter("wait", "Wait up to this long for an event.", DURATION)],
        "responses": responses(schema, [], _READ_ERRORS),
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
            parameter(
                "sha256", "The SHA-256 that the body must have.", {"type": "string", "pattern": "^[0-9a-f]{64}$"}
            ),
            header("Repr-Digest", "The same as sha-256=:BASE64:; Content-Digest and Digest are also accepted."),
            header("If-Match", "An ETag: store it only in place of this content."),
            header("If-None-Match", "*: store it only if there is no artifact of this name."),
        ],
        "requestBody": {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
        "responses": responses(schema_of[repr(Artifact)], ["Position", "ETag"], (*_WRITE_ERRORS, 412)),
    }
    read = [
        *named,
        AT_LEAST,
        *(header(name, text) for name, text in _OF_DOWNLOADS.items()),
    ]
    get = {
        "operationId": "artifact_download",
        "tags": ["artifacts"],
        "summary": "Read the bytes of an artifact, or a range of them.",
        "parameters": [*read, *(header(name, text) for name, text in _OF_RANGES.items())],
        "responses": responses({}, _OF_CONTENT, (*_READ_ERRORS, 206, 304, 412, 416), "*/*"),
    }
    head = {
        **get,
        "operationId": "artifact_head",
        "summary": "Read the size, type and hash of an artifact, without its bytes.",
        "parameters": read,
        "responses": responses({}, _OF_CONTENT, (*_READ_ERRORS, 304, 412), "*/*"),
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
            header("Last-Event-ID", "The cursor to continue from; overrides after."),
        ],
        "responses": responses({"type": "string"}, [], _READ_ERRORS, "text/event-stream"),
    }


def _query_of(
    type: Any, in_path: str | None = None, hidden: set[str] | frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    parameters = []
    for field in fields_of(type):
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


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    left = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    return left[0] if len(left) == 1 else schema


def _words(operation: Any) -> dict[str, str]:
    summary, _, description = inspect.cleandoc(operation.__doc__ or "").partition("\n\n")
    return {"summary": " ".join(summary.split()), **({"description": description} if description else {})}
