"""The description of the HTTP API, derived from the operations: an OpenAPI document, and a page that shows it."""

from __future__ import annotations

from coordinator.api.openapi.generate import document, encoded, schema_hook
from coordinator.api.openapi.html_page import page

__all__ = ["document", "encoded", "page", "schema_hook"]
