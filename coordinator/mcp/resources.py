"""Resources: what a model's program can read and watch, as ``coordinator://PROJECT/…``.

An event names the resources that it changes, so a subscriber learns of every change, even one made in psql.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from coordinator.errors import NotFound
from coordinator.model.event import Event
from coordinator.model.operation import Operation
from coordinator.operations import agents, directives, documents, job_history, locks, messages, signals

__all__ = ["RESOURCES", "McpResource", "changed_by", "found", "uri_of"]

SCHEME = "coordinator"
WINDOW = "50"  # messages of a conversation


class McpResource(msgspec.Struct, frozen=True):
    """A kind of resource of a noun. ``fields`` are the parts of the path, and ``further`` are other values of the operation.

    ``topic`` matches the events that change it. ``place`` returns the path parts that an event changes; for a list,
    once.
    """

    noun: str
    operation: type[Operation[Any]]
    fields: tuple[str, ...]
    title: str
    topic: str
    place: Callable[[Event], Iterator[tuple[str, ...]]]
    further: Mapping[str, str] = {}

    @property
    def template(self) -> str:
        """The end of its URI, with placeholders in braces."""
        return "/".join([self.noun, *(f"{{{field}}}" for field in self.fields)])


def _whole(_event: Event) -> Iterator[tuple[str, ...]]:
    yield ()


def _keyed(event: Event) -> Iterator[tuple[str, ...]]:
    if event.key:
        yield (event.key,)


def _document(event: Event) -> Iterator[tuple[str, ...]]:
    kind, _, key = str(event.key).partition("/")
    yield kind, key


def _conversation(event: Event) -> Iterator[tuple[str, ...]]:
    if event.data.get("kind") == "message":
        yield (str(event.data["name"]),)


def _jobs(event: Event) -> Iterator[tuple[str, ...]]:
    ids = event.data.get("ids")
    for job in ids if isinstance(ids, list) else ():
        yield (str(job),)


RESOURCES = (
    McpResource("signals", signals.List, (), "All signals", "signal.*", _whole),
    McpResource("signals", signals.Get, ("key",), "A signal", "signal.*", _keyed),
    McpResource("locks", locks.List, (), "Who holds which lock", "lock.*", _whole),
    McpResource("agents", agents.List, (), "Registered agents", "agent.*", _whole),
    McpResource("directives", directives.Inbox, ("agent",), "Open directives for an agent", "directive.*", _whole),
    McpResource("documents", documents.Get, ("kind", "key"), "A document", "document.*", _document),
    McpResource("messages", messages.Window, ("session",), "A conversation", "log.*", _conversation, {"last": WINDOW}),
    McpResource("jobs", job_history.List, (), "Jobs, newest first", "job.*", _whole),
    McpResource("jobs", job_history.Show, ("job",), "A job", "job.*", _jobs),
)


def uri_of(project: str, noun: str, parts: tuple[str, ...] = ()) -> str:
    """Return the URI of a resource of a noun; each part is one segment of the path."""
    return f"{SCHEME}://{project}/" + "/".join(quote(part, safe="") for part in (noun, *parts))


def found(uri: str, project: str) -> tuple[McpResource, dict[str, str], str]:
    """Return what a URI names: the resource, the values of its operation, and the URI in the form of ``uri_of``.

    The last part takes the rest of the path, so a key may contain unescaped slashes.

    Raises: ``NotFound``.
    """
    root = uri_of(project, "")
    noun, _, rest = uri.removeprefix(root).partition("/")
    if uri.startswith(root):
        for resource in RESOURCES:
            if resource.noun != noun or bool(resource.fields) != bool(rest):
                continue
            parts = tuple(unquote(part) for part in rest.split("/", max(len(resource.fields) - 1, 0)) if part)
            if len(parts) == len(resource.fields):
                values = {**dict(zip(resource.fields, parts, strict=True)), **resource.further}
                return resource, values, uri_of(project, noun, parts)
    raise NotFound(
        f'there is no resource "{uri[:200]}"',
        hint=f"Resources are {SCHEME}://{project}/ and one of: "
        f"{', '.join(resource.template for resource in RESOURCES)}.",
    )


def changed_by(event: Event) -> set[str]:
    """Return the URIs of the resources that an event changed."""
    noun = event.type.partition(".")[0] + ".*"
    return {
        uri_of(event.project or "", resource.noun, parts)
        for resource in RESOURCES
        if resource.topic == noun
        for parts in resource.place(event)
    }
