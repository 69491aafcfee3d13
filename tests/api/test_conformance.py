"""The server against its own OpenAPI document: no 500, no undocumented status, no response that violates its schema."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import msgspec
import pytest

from coordinator.api.endpoint import decode_hook, endpoints
from coordinator.api.openapi import document
from tests.daemon import Daemon
from tests.waiting import DEADLINE_S, until

# Tables of the characters that an encoding has: whoever finds none here takes two seconds to make them.
STORAGE = Path(__file__).parents[2] / ".hypothesis"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)


@pytest.fixture
async def own(database_url: str) -> Any:
    """A daemon for this test alone: requests contain anything, and no wait is long."""
    with Daemon(database_url, http_wait_s=1.0) as daemon:
        yield await daemon.ready()


@pytest.mark.slow
@pytest.mark.parametrize("examples", [1, pytest.param(200, marks=pytest.mark.long)])
async def test_the_server_does_what_its_description_says(own: Daemon, tmp_path: Path, examples: int) -> None:
    command = [
        str(Path(sys.executable).with_name("st")),
        "run",
        "openapi.json",
        f"--url={own.url}",
        "--exclude-path=/v1/events/stream",  # does not end
        f"--checks={','.join(CHECKS)}",
        "--phases=examples,coverage,fuzzing",
        f"--max-examples={examples}",
        "--suppress-health-check=all",
        f"--request-timeout={DEADLINE_S:g}",
        "--generation-database=none",  # nobody repeats this run, and to keep its examples takes a sixth of its time
        "--warnings=off",
        "--no-color",
    ]
    # Headers that are valid in any request, whatever they hold, are left to their own tests: they would triple the requests.
    description = document()
    del description["security"], description["components"]["securitySchemes"]
    for described in description["paths"].values():
        del described["parameters"]
    (tmp_path / "openapi.json").write_bytes(msgspec.json.encode(description))
    # For each request, it would look through the environment for a proxy and in the home folder for a password.
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    environment["NETRC"] = str(tmp_path / "absent")  # an empty file would be read for each request
    environment["HYPOTHESIS_STORAGE_DIRECTORY"] = str(STORAGE)
    output, worked = tmp_path / "output", 0
    with (
        output.open("w") as out,
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out) as run,
    ):

        async def further() -> bool:
            """However much there is to try: it has ended, or had a processor since the last look."""
            nonlocal worked
            before, worked = worked, int(Path(f"/proc/{run.pid}/schedstat").read_text().split()[0])
            return run.poll() is not None or worked > before

        try:
            while run.poll() is None:
                await until(further, "it gets further", every_s=0.5)
                await anyio.sleep(0.5)
        finally:
            run.kill()
    text = output.read_text()
    assert run.returncode == 0, text[-8000:]
    assert "generated" in text
    assert not own.lines("request.failed"), own.output()


async def test_the_description_has_every_operation_and_no_dangling_reference(http: httpx.AsyncClient) -> None:
    found = (await http.get("/schema/openapi.json")).json()
    described = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    assert {(endpoint.method, endpoint.path) for endpoint in endpoints()} <= described
    assert ("GET", "/v1/events/stream") in described

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from (str(found) for name, found in value.items() if name == "$ref")
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                yield from references(item)

    parts = {f"#/components/{kind}/{name}" for kind, named in found["components"].items() for name in named}
    assert {*references(found)} <= parts
    names_of = [
        operation["operationId"]
        for methods in found["paths"].values()
        for method, operation in methods.items()
        if method != "parameters"
    ]
    assert len(names_of) == len(set(names_of))


def test_every_body_has_an_example_that_its_operation_accepts() -> None:
    paths = document()["paths"]
    for endpoint in endpoints():
        if endpoint.method == "POST":
            example = paths[endpoint.path]["post"]["requestBody"]["content"]["application/json"]["example"]
            decoded = msgspec.json.decode(msgspec.json.encode(example), type=endpoint.parameters, dec_hook=decode_hook)
            assert example
            for name, value in example.items():
                assert getattr(decoded, name) != "text", f"{endpoint.path}: {name} needs an example"
                assert value not in ([], {}), f"{endpoint.path}: {name} needs an example"


async def test_the_readable_page_is_self_contained(http: httpx.AsyncClient) -> None:
    page = await http.get("/schema")
    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/signals/set" in page.text
    assert "<code>ttl</code>" in page.text
    assert "``" not in page.text
    shown = page.text.replace("https://example.com/hook", "")  # the example of a webhook, which is text
    for outside in ("http://", "https://", "<script", "src="):
        assert outside not in shown
