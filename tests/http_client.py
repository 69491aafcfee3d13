"""HTTP clients of the tests."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import httpx

from tests.waiting import DEADLINE_S

__all__ = ["http_client"]

# Each client of httpx reads the certificate authorities, which takes 20 ms; no test needs them.
_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def http_client(url: str = "", *, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    """Return a client for ``http://…`` or ``unix:///path``."""
    path = url.removeprefix("unix://") if url.startswith("unix:") else None
    return httpx.AsyncClient(
        base_url="http://localhost" if path else url,
        transport=httpx.AsyncHTTPTransport(verify=_TLS, uds=path),
        headers=headers,
        timeout=DEADLINE_S,
    )
