"""URIs of resources: what they name, and which of them an event changes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import NotFound
from coordinator.mcp.resources import RESOURCES, changed_by, found, uri_of
from coordinator.model.event import Event

PARTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(st.sampled_from([resource for resource in RESOURCES if resource.fields]), st.lists(PARTS, min_size=2))
def test_a_uri_names_what_it_was_made_from(resource: object, parts: list[str]) -> None:
    wanted = tuple(parts[: len(resource.fields)])  # type: ignore[attr-defined]
    uri = uri_of("shop", resource.noun, wanted)  # type: ignore[attr-defined]
    again, values, canonical = found(uri, "shop")
    assert (again, canonical) == (resource, uri)
    assert tuple(values[field] for field in again.fields) == wanted


def test_the_slashes_of_a_key_need_no_escapes() -> None:
    _, values, uri = found("coordinator://shop/documents/todo/build/42", "shop")
    assert values == {"kind": "todo", "key": "build/42"}
    assert uri == "coordinator://shop/documents/todo/build%2F42"


@pytest.mark.parametrize(
    "uri",
    [
        "coordinator://other/signals",
        "coordinator://shop",
        "coordinator://shop/",
        "coordinator://shop/nothing",
        "coordinator://shop/documents/todo",
        "coordinator://shop/locks/src",
        "https://shop/signals",
        "signals",
        "coordinator://[shop/signals",
        "coordinator://shop/signals/%ff%fe",
        "",
    ],
)
def test_another_uri_is_refused_with_those_that_there_are(uri: str) -> None:
    if "%ff" in uri:  # half of a character is a key like any other, and no signal has it
        assert found(uri, "shop")[1]["key"]
        return
    with pytest.raises(NotFound) as refusal:
        found(uri, "shop")
    assert "signals/{key}" in (refusal.value.hint or "")


@pytest.mark.parametrize(
    ("type", "key", "data", "uris"),
    [
        ("signal.set", "a/b", {}, {"signals", "signals/a%2Fb"}),
        ("lock.granted", "src/", {}, {"locks"}),
        ("agent.reaped", "1", {}, {"agents"}),
        ("document.put", "todo/x/y", {"kind": "todo"}, {"documents/todo/x%2Fy"}),
        ("log.appended", "message/s", {"kind": "message", "name": "s"}, {"messages/s"}),
        ("log.appended", "step/s", {"kind": "step", "name": "s"}, set()),
        ("job.completed", "builds", {"ids": ["1", "2"]}, {"jobs", "jobs/1", "jobs/2"}),
        ("custom.tick", None, {}, set()),
    ],
)
def test_an_event_names_the_resources_that_it_changes(
    type: str, key: str | None, data: dict[str, object], uris: set[str]
) -> None:
    event = Event("", 1, type, "shop", key, "a", datetime.now(UTC), data)
    assert {uri.removeprefix("coordinator://shop/") for uri in changed_by(event)} == uris
