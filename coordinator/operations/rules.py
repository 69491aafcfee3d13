"""Rules: setting one signal clears others in the same transaction."""

from __future__ import annotations

from coordinator.model.operation import InProject
from coordinator.model.signal import Rule

__all__ = ["Delete", "List", "Set"]


class Set(InProject[Rule], frozen=True, kw_only=True):
    """Create or change a rule: setting a key with the last segment ``when_set`` clears the keys ``clears`` with the same prefix.

    It applies in one project or, with ``everywhere``, in all.
    """

    function = "rule_set"
    speakers = ("actor",)

    when_set: str
    clears: list[str]
    everywhere: bool = False
    actor: str | None = None

    def about(self) -> str | None:
        """Return the project; None for a rule that applies in all."""
        return None if self.everywhere else self.project


class List(InProject[list[Rule]], frozen=True, kw_only=True):
    """List the rules that apply in a project, by ``when_set``. Its own rules come before those for all projects."""

    function = "rule_list"
    reads = True
    page_by = ("when_set", "project")

    after: list[str] | None = None
    limit: int = 1000


class Delete(InProject[bool], frozen=True, kw_only=True):
    """Delete a rule.

    Raises: ``NotFound``.
    """

    function = "rule_delete"
    speakers = ("actor",)

    when_set: str
    everywhere: bool = False
    actor: str | None = None

    def about(self) -> str | None:
        """Return the project; None for a rule that applies in all."""
        return None if self.everywhere else self.project
