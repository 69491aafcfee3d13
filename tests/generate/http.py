"""The reference of HTTP, from the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from coordinator.api import openapi
from tests.generate.markdown import escaped, table

__all__ = ["http"]

# Described once, at the top of the page.
GENERAL = ("project", "limit", "after", "max_lag", "at_least", "wait", "Idempotency-Key")
GENERAL_FIELDS = {
    "project": {"type": "string", "default": "default"},
    "actor": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
}


def http(roles: Mapping[str, str]) -> str:
    """Describe every path, by noun, and then every returned object; ``roles`` has the roles that functions need."""
    document = openapi.document()
    schemas = document["components"]["schemas"]
    by_noun: dict[str, list[str]] = {}
    bodies: set[str] = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method == "parameters":  # of every path; described once, at the top of the page
                continue
            lines = by_noun.setdefault(operation["tags"][0], [])
            lines += _operation(
                method.upper(), path, operation | {"role": roles.get(operation["operationId"])}, schemas, bodies
            )
    parts = [line for noun, lines in sorted(by_noun.items()) for line in (f"## {noun}\n", *lines)]
    parts.append("## Objects\n")
    for name in sorted(schemas, key=_short):
        if name not in bodies:
            parts.append(f"### {_short(name)}\n")
            if text := schemas[name].get("description"):
                parts.append(f"{escaped(text)}\n")
            parts.append(_fields(schemas[name].get("properties", {}), set()))
    return "\n".join(parts)


def _operation(
    method: str,
    path: str,
    operation: Mapping[str, Any],
    schemas: Mapping[str, Any],
    bodies: set[str],
) -> Iterator[str]:
    yield f"### {method} {path}\n"
    yield f"{escaped(operation['summary'])}\n"
    for paragraph in operation.get("description", "").split("\n\n"):
        if paragraph:
            yield f"{escaped(paragraph)}\n"
    if operation["role"]:
        yield f"Role: `{operation['role']}`\n"
    parameters = operation.get("parameters", ())
    if general := [f"`{one['name']}`" for one in parameters if one["name"] in GENERAL and not one["required"]]:
        yield f"General parameters: {', '.join(general)}\n"
    if own := [one for one in parameters if one["name"] not in GENERAL or one["required"]]:
        yield table(
            ("parameter", "in", "type", "default", "meaning"),
            (
                (
                    f"`{one['name']}`" + (", required" if one["required"] else ""),
                    one["in"],
                    _type(one["schema"]),
                    _default(one["schema"]),
                    escaped(one.get("description", one["schema"].get("description", ""))),
                )
                for one in own
            ),
        )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body:
        name = body["schema"]["$ref"].rpartition("/")[2]
        bodies.add(name)
        fields = schemas[name].get("properties", {})
        general = [field for field in fields if fields[field] == GENERAL_FIELDS.get(field)]
        own = {field: schema for field, schema in fields.items() if field not in general}
        shared = " and ".join(f"`{field}`" for field in general)
        if own or not general:
            yield f"The body, besides {shared}:\n" if general else "The body:\n"
            yield _fields(own, set(schemas[name].get("required", ())))
        else:
            yield f"The body: {shared}.\n"
        yield f"```json\n{json.dumps(body['example'], ensure_ascii=False)}\n```\n"
    success = operation["responses"]["200"]
    returned = success.get("content", {}).get("application/json", {}).get("schema")
    if returned:
        yield f"Returns {_returned(returned)}.\n"


def _returned(schema: Mapping[str, Any]) -> str:
    fields = schema.get("properties", {})
    if set(fields) >= {"items"}:
        more = ", and the cursor of the next page" if "cursor" in fields else ""
        return f"`items`, {_type(fields['items'])}{more}"
    if set(fields) == {"result"}:
        return f"`result`, {_type(fields['result'])}"
    return _type(schema)


def _fields(properties: Mapping[str, Any], required: set[str]) -> str:
    if not properties:
        return "No fields.\n"
    return table(
        ("field", "type", "default", "meaning"),
        (
            (
                f"`{name}`" + (", required" if name in required else ""),
                _type(one),
                _default(one),
                escaped(one.get("description", "")),
            )
            for name, one in properties.items()
        ),
    )


def _default(schema: Mapping[str, Any]) -> str:
    found = schema.get("default")
    return "" if found in (None, "", [], {}) else f"`{json.dumps(found)}`"


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = _short(schema["$ref"].rpartition("/")[2])
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        kinds = list(dict.fromkeys(_type(kind) for kind in schema["anyOf"]))
        if len(kinds) > 5:
            return "any JSON value"
        return " or ".join(kinds)
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kind = schema.get("type", "any JSON value")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"array of {_type(schema['items'])}" if schema.get("items") else "array"
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _short(name: str) -> str:
    return name.rpartition("operations.")[2].rpartition("model.")[2].replace(".", "-")
