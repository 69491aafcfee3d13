"""Rules: setting one signal clears others in the same transaction."""

from __future__ import annotations

from coordinator.model.operation import Operation, Scope
from coordinator.model.signal import Rule

__all__ = ["Delete", "List", "Set"]


class Set(Operation[Rule], frozen=True, kw_only=True):
    """Create or change a rule: setting a key with the last segment ``when_set`` clears the keys ``clears`` with the same prefix.

    It applies in one project or, with ``everywhere``, in all.
    """

    function = "rule_set"
    scope = Scope.IN_PROJECT
    speakers = ("actor",)

    project: str
    when_set: str
    clears: list[str]
    everywhere: bool = False
    actor: str | None = None

    def about(self) -> str | None:
        """Return the project; None for a rule that applies in all."""
        return None if self.everywhere else self.project


class List(Operation[list[Rule]], frozen=True, kw_only=True):
    """List the rules that apply in a project, by ``when_set``. Its own rules come before those for all projects."""

    function = "rule_list"
    reads = True
    scope = Scope.IN_PROJECT
    page_by = ("when_set", "project")

    project: str
    after: list[str] | None = None
    limit: int = 1000


class Delete(Operation[bool], frozen=True, kw_only=True):
    """Delete a rule.

    Raises: ``NotFound``.
    """

    function = "rule_delete"
    scope = Scope.IN_PROJECT
    speakers = ("actor",)

    project: str
    when_set: str
    everywhere: bool = False
    actor: str | None = None

    def about(self) -> str | None:
        """Return the project; None for a rule that applies in all."""
        return None if self.everywhere else self.project
