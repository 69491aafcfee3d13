"""Host and Origin, also where other machines reach the daemon."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from coordinator.api.origin import origin_middleware, origins_of
from coordinator.config import Config
from coordinator.errors import ConfigurationError


async def ask(config: Config, method: str = "GET", *, loopback: bool = False, **headers: str) -> httpx.Response:
    async def served(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("served")

    app = Starlette(routes=[Route("/", served)], middleware=origin_middleware(config, loopback=loopback))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://plane.example") as client:
        return await client.request(method, "/", headers=headers)


async def status(*, loopback: bool, host: str, **headers: str) -> int:
    return (await ask(Config(hosts="plane.example"), loopback=loopback, host=host, **headers)).status_code


@pytest.mark.parametrize(("loopback", "host", "expected"), [
    (True, "plane.example", 200),
    (True, "PLANE.example:443", 200),
    (True, "10.0.0.7:7420", 403),
    (False, "10.0.0.7:7420", 200),
    (False, "anything.example", 200),
])  # fmt: skip
async def test_host_must_be_known_only_on_loopback(loopback: bool, host: str, expected: int) -> None:
    assert await status(loopback=loopback, host=host) == expected


@pytest.mark.parametrize(("host", "origin", "expected"), [
    ("10.0.0.7:7420", "http://10.0.0.7:7420", 200),
    ("10.0.0.7:7420", "https://plane.example", 200),
    ("10.0.0.7:7420", "http://10.0.0.8:7420", 403),
    ("10.0.0.7:7420", "http://localhost:3000", 403),
    ("10.0.0.7:7420", "null", 403),
    ("10.0.0.7:7420", "http://[", 403),
    ("10.0.0.7:7420", "file://10.0.0.7:7420", 403),
])  # fmt: skip
async def test_origin_must_match_host_or_be_configured_everywhere(host: str, origin: str, expected: int) -> None:
    assert await status(loopback=False, host=host, origin=origin) == expected


@pytest.mark.parametrize(("site", "origin", "expected"), [
    ("same-origin", None, 200),
    ("none", None, 200),
    ("cross-site", None, 403),
    ("same-site", None, 403),
    ("Cross-Site", None, 403),
    ("unheard-of", None, 403),
    ("cross-site", "https://dashboard.example", 200),
    ("same-site", "http://other.plane.example", 403),
])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_for_a_page_of_another_site_is_refused_although_it_names_no_origin(
    method: str, site: str, origin: str | None, expected: int
) -> None:
    headers = {"sec-fetch-site": site} | ({"origin": origin} if origin else {})
    answer = await ask(Config(origins="https://dashboard.example"), method, **headers)
    assert answer.status_code == (405 if expected == 200 and method == "POST" else expected)


DASHBOARD = "https://dashboard.example"


async def test_pages_of_a_configured_origin_may_send_requests_and_read() -> None:
    config = Config(origins=DASHBOARD)
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    asked, read = await ask(config, "OPTIONS", origin=DASHBOARD, **preflight), await ask(config, origin=DASHBOARD)
    assert (asked.status_code, read.status_code, read.text) == (200, 200, "served")
    assert "authorization" in asked.headers["access-control-allow-headers"]
    assert read.headers["vary"] == "Origin"  # Starlette says in a preflight what else it looked at
    for answer in (asked, read):
        assert answer.headers["access-control-allow-origin"] == DASHBOARD
        assert "Origin" in answer.headers["vary"].split(", ")
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("origin", "origins"),
    [
        (DASHBOARD, None),
        ("http://dashboard.example", DASHBOARD),
        (f"{DASHBOARD}:8443", DASHBOARD),
        (f"{DASHBOARD}.evil", DASHBOARD),
        ("null", DASHBOARD),
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_pages_of_any_other_origin_may_not(method: str, origin: str, origins: str | None) -> None:
    preflight = {"access-control-request-method": "POST"}
    answer = await ask(Config(origins=origins), method, origin=origin, **preflight)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "origins", ["*", "https://*.example", "dashboard.example", f"{DASHBOARD}/", "HTTPS://x", "null", "https://a@b"]
)
def test_an_invalid_origin_is_a_configuration_error(origins: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        origins_of(Config(origins=f"{DASHBOARD}, {origins}"))
    assert raised.value.hint
