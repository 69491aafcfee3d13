"""Rules: what setting one signal clears, in the same transaction."""

from __future__ import annotations

from typing import ClassVar

from coordinator.model.operation import Operation
from coordinator.model.signal import Rule

__all__ = ["Delete", "List", "Set"]


class Set(Operation[Rule], frozen=True, kw_only=True):
    """Make or change the rule for setting a last segment: it clears ``clears`` beside it, in this project or ``everywhere``."""

    function: ClassVar[str] = "rule_set"
    project: str
    when_set: str
    clears: list[str]
    everywhere: bool = False
    actor: str | None = None


class List(Operation[list[Rule]], frozen=True, kw_only=True):
    """List the rules that hold in a project, by what is set; its own come before those for all."""

    function: ClassVar[str] = "rule_list"
    reads: ClassVar[bool] = True
    page_by: ClassVar[tuple[str, ...]] = ("when_set", "project")
    project: str
    after: list[str] | None = None
    limit: int = 1000


class Delete(Operation[bool], frozen=True, kw_only=True):
    """Delete a rule.

    Raises: ``NotFound``.
    """

    function: ClassVar[str] = "rule_delete"
    project: str
    when_set: str
    everywhere: bool = False
    actor: str | None = None
