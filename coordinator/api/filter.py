"""Filters of events: the projects, topics, keys and actors that a subscriber wants. A filter is compiled once and checks every event."""

from __future__ import annotations

import re
from collections.abc import Sequence

from coordinator.api.ring import Frame
from coordinator.errors import InvalidArgument
from coordinator.model.event import Event
from coordinator.model.key_pattern import check_key_patterns, matches_any
from coordinator.model.topic import check_topics

__all__ = ["Filter"]

TYPES_REMEMBERED = 1000


class Filter:
    """Projects, topics, patterns of keys, and actors; an empty list means all. Equal filters are one subscription of the gateway.

    Raises: ``InvalidArgument`` for an invalid or unknown topic, an invalid pattern, or too many.
    """

    def __init__(
        self,
        projects: Sequence[str] = (),
        topics: Sequence[str] = (),
        max_count: int = 100,
        *,
        keys: Sequence[str] = (),
        actors: Sequence[str] = (),
    ) -> None:
        count = max(map(len, (projects, topics, keys, actors)))
        if count > max_count:
            raise InvalidArgument(
                f"{count} projects, topics, keys or actors; the maximum is {max_count}",
                hint="Name fewer, or use a pattern such as signal.* or task/7/*",
                code="ZC102",
            )
        check_topics(topics)
        check_key_patterns(keys)
        self.projects = frozenset(projects) or None
        self.topics = tuple(sorted(set(topics))) if "*" not in topics else ()
        self.keys = tuple(sorted(set(keys)))
        self.actors = tuple(sorted(set(actors)))
        pattern = "|".join(re.escape(topic).replace(r"\*", ".*") for topic in self.topics) or ".*"
        self._match = re.compile(pattern).fullmatch
        self._seen: dict[str, bool] = {}

    @property
    def project(self) -> str | None:
        """The project, if there is exactly one."""
        return next(iter(self.projects)) if self.projects and len(self.projects) == 1 else None

    @property
    def identity(self) -> tuple[object, ...]:
        """The values by which filters are equal."""
        return self.projects, self.topics, self.keys, self.actors

    def takes(self, event: Event | Frame) -> bool:
        """Return whether an event is wanted."""
        return (
            (self.projects is None or event.project in self.projects)
            and self._takes_type(event.type)
            and (not self.actors or event.actor in self.actors)
            and (not self.keys or matches_any(self.keys, event.key))
        )

    def _takes_type(self, type: str) -> bool:
        wanted = self._seen.get(type)
        if wanted is None:
            if len(self._seen) >= TYPES_REMEMBERED:
                self._seen.clear()
            wanted = self._seen[type] = self._match(type) is not None
        return wanted
