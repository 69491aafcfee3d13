"""Which events a subscriber wants: projects and topics. A filter is compiled once and checks every event."""

from __future__ import annotations

import re
from collections.abc import Sequence

from coordinator.errors import InvalidArgument
from coordinator.model.topic import check_topics

__all__ = ["Filter"]

TYPES_REMEMBERED = 1000


class Filter:
    """Projects and topics; an empty list means all. The gateway serves equal filters as one subscription.

    Raises: ``InvalidArgument`` for an invalid or unknown topic, or for too many.
    """

    def __init__(self, projects: Sequence[str] = (), topics: Sequence[str] = (), max_count: int = 100) -> None:
        if len(projects) > max_count or len(topics) > max_count:
            raise InvalidArgument(
                f"{max(len(projects), len(topics))} projects or topics; the maximum is {max_count}",
                hint="Name fewer, or use a pattern such as signal.*",
                code="ZC102",
            )
        check_topics(topics)
        self.projects = frozenset(projects) or None
        self.topics = tuple(sorted(set(topics))) if "*" not in topics else ()
        pattern = "|".join(re.escape(topic).replace(r"\*", ".*") for topic in self.topics) or ".*"
        self._match = re.compile(pattern).fullmatch
        self._seen: dict[str, bool] = {}

    @property
    def project(self) -> str | None:
        """The project, if there is exactly one."""
        return next(iter(self.projects)) if self.projects and len(self.projects) == 1 else None

    @property
    def key(self) -> tuple[frozenset[str] | None, tuple[str, ...]]:
        """What makes two filters the same."""
        return self.projects, self.topics

    def takes_type(self, type: str) -> bool:
        """Return whether events of a type are wanted."""
        wanted = self._seen.get(type)
        if wanted is None:
            if len(self._seen) >= TYPES_REMEMBERED:
                self._seen.clear()
            wanted = self._seen[type] = self._match(type) is not None
        return wanted

    def takes(self, type: str, project: str | None) -> bool:
        """Return whether an event of this type in this project is wanted."""
        return (self.projects is None or project in self.projects) and self.takes_type(type)
