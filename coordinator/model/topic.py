"""Topics: which types of events a reader wants. ``signal.set`` is a type, ``signal.*`` a pattern, ``*`` matches everything."""

from __future__ import annotations

import re
from collections.abc import Iterable

from coordinator.errors import InvalidArgument
from coordinator.model.catalogue import EVENT_TYPES, LIMITS
from coordinator.suggestion import suggestion

__all__ = ["TOPICS", "check_topics"]

OWN = "custom"  # user-defined types begin with it
_TOPIC = re.compile(r"\*|[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?")


def _patterns() -> Iterable[str]:
    for name in (*EVENT_TYPES, f"{OWN}.any"):
        words = name.split(".")
        yield from (".".join([*words[:count], "*"]) for count in range(1, len(words)))


TOPICS = (*sorted({*EVENT_TYPES, *_patterns()}), "*")


def check_topics(topics: Iterable[str]) -> None:
    """Reject a topic that no event can have, because a reader would wait for it forever.

    Raises: ``InvalidArgument``.
    """
    for topic in topics:
        if len(topic) > LIMITS["name"] or not _TOPIC.fullmatch(topic):
            raise InvalidArgument(
                f'invalid topic "{topic[: LIMITS["name"]]}"',
                hint="Write a type like signal.set, a pattern like signal.*, or * for all topics.",
                code="ZC103",
            )
        if topic not in TOPICS and not topic.startswith(f"{OWN}."):
            raise InvalidArgument(
                f'unknown topic "{topic}"',
                hint=suggestion(topic, TOPICS, f"Topics are {', '.join(TOPICS)}."),
                code="ZC103",
            )
