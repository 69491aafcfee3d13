"""The document as a readable, self-contained page."""

from __future__ import annotations

import html
import json
import re
from functools import cache
from typing import Any

from coordinator.api.openapi.generate import document
from coordinator.api.openapi.parts import REQUEST_HEADERS, RESPONSE_HEADERS
from coordinator.version import version

__all__ = ["page"]


@cache
def page() -> bytes:
    """Return the document as a readable page, in HTML."""
    shown = document()
    parts = [_HEAD.format(title=f"coordinator {version()}", text=_text(shown["info"]["description"]))]
    rows = [f"<tr><td><code>{name}</code><td>request<td>{_text(text)}" for name, text in REQUEST_HEADERS.items()]
    rows += [
        f"<tr><td><code>{name}</code><td>response<td>{_text(text)}" for name, (text, _) in RESPONSE_HEADERS.items()
    ]
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
