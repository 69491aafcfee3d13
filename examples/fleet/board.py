"""The state of every share, as the events tell it; manager and agents go by it.

share/<n>/FILES       its files, from the manager
share/<n>/CLAIMED     somebody counts; ephemeral, so a dead agent's claim ends with the agent
share/<n>/COMPLETED   the result
share/<n>/QA_CLAIMED  somebody counts again; ephemeral
share/<n>/QA_PASSED   the second count gave the same
share/<n>/REJECTED    do it again: a rule clears COMPLETED and QA_PASSED in the same transaction
plan/DONE             everybody may go

A board may be a moment behind. Whoever acts on it first claims the share, and then reads its present state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["AGENTS", "DONE", "MANAGER", "ROLE", "SHARES", "Board", "Flag"]

AGENTS = 6
SHARES = 36
MANAGER = "manager"
ROLE = "counter"
DONE = "plan/DONE"


class Flag(NamedTuple):
    """A signal of a share."""

    value: Any
    actor: str


class Board:
    """The flags of every share, by number and name."""

    def __init__(self) -> None:
        self.shares: dict[int, dict[str, Flag]] = {}
        self.done = False

    def apply(self, event: Any) -> tuple[int, str] | None:
        """Apply an event; return the share and flag that it changed, if any."""
        match event.type.partition(".")[0], (event.key or "").split("/"):
            case "signal", ["plan", "DONE"]:
                self.done = True
            case "signal", ["share", number, name]:
                flags = self.shares.setdefault(int(number), {})
                if event.type == "signal.set":
                    flags[name] = Flag(event.data["value"], event.actor)
                else:  # deleted, cleared by a rule, expired, or ended with its agent
                    flags.pop(name, None)
                return int(number), name
        return None

    def open(self) -> list[int]:
        """List the shares that nobody has done or is doing."""
        return [
            n for n, flags in self.shares.items() if "FILES" in flags and not flags.keys() & {"CLAIMED", "COMPLETED"}
        ]

    def unchecked(self, checker: str) -> list[int]:
        """List the results of others that nobody has checked or is checking."""
        return [
            n
            for n, flags in self.shares.items()
            if not flags.keys() & {"QA_CLAIMED", "QA_PASSED"}
            and "COMPLETED" in flags
            and flags["COMPLETED"].actor != checker
        ]

    def accepted(self) -> list[int]:
        """List the shares that are done and checked."""
        return [n for n, flags in self.shares.items() if flags.keys() >= {"COMPLETED", "QA_PASSED"}]
