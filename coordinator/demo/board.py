"""The shares as the events tell them: what manager and agents go by.

``share/<n>/FILES``       the files of the share, by the manager
``share/<n>/CLAIMED``     somebody works on it: ephemeral, so that a dead agent's claim ends by itself
``share/<n>/COMPLETED``   the numbers
``share/<n>/QA_CLAIMED``  somebody checks them: ephemeral
``share/<n>/QA_PASSED``   somebody else found the same
``share/<n>/REJECTED``    to be done again: the rule clears COMPLETED and QA_PASSED in the same transaction
``plan/DONE``             everybody may go

A board may be behind; whoever acts on it claims first (compare-and-set) and then looks at the present state.
"""

from __future__ import annotations

import msgspec

from coordinator.demo.source import SourceFile
from coordinator.model.event import Event
from coordinator.model.operation import Json

__all__ = ["AGENTS", "DONE", "MANAGER", "ROLE", "Board", "Flag", "Plan", "Settings", "share_key"]

AGENTS = 6
MANAGER = "manager"
ROLE = "reviewer"
DONE = "plan/DONE"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of the demonstration is told, as one line of JSON on standard input: it may hold a password.

    ``after`` is the cursor that the story begins at. ``hold_until``: the last shares are given out at this time, in seconds
    since 1970. ``limit_s``: the process ends by itself after so many seconds.
    """

    url: str
    direct_url: str | None
    project: str
    name: str
    root: str
    after: str
    hold_until: float
    pace_s: float
    limit_s: float


class Plan(msgspec.Struct, frozen=True):
    """The value of FILES. ``reserved``: only for the agent that a directive sends there."""

    files: list[SourceFile]
    reserved: bool = False


class Flag(msgspec.Struct, frozen=True):
    """A signal of a share."""

    value: Json
    actor: str


class Board:
    """Every share's flags, by number and name."""

    def __init__(self) -> None:
        self.shares: dict[int, dict[str, Flag]] = {}
        self.done = False

    def apply(self, event: Event) -> tuple[int, str] | None:
        """Apply an event; tell which share's flag it is about, if any."""
        noun, _, verb = event.type.partition(".")
        if noun != "signal" or event.key is None:
            return None
        if event.key == DONE:
            self.done = True
            return None
        head, _, rest = event.key.partition("/")
        number, _, name = rest.partition("/")
        if head != "share" or not number.isdecimal():
            return None
        flags = self.shares.setdefault(int(number), {})
        if verb == "set":
            flags[name] = Flag(event.data["value"], event.actor)
        else:
            flags.pop(name, None)
        return int(number), name

    def plan(self, number: int) -> Plan:
        """Give the files of a share."""
        return msgspec.convert(self.shares[number]["FILES"].value, Plan)

    def open(self) -> list[int]:
        """List the shares that anybody may take."""
        return [
            number
            for number, flags in self.shares.items()
            if "FILES" in flags and not flags.keys() & {"CLAIMED", "COMPLETED"} and not self.plan(number).reserved
        ]

    def unchecked(self, checker: str) -> list[int]:
        """List the shares that somebody else completed and nobody has checked or is checking."""
        return [
            number
            for number, flags in self.shares.items()
            if "COMPLETED" in flags
            and not flags.keys() & {"QA_CLAIMED", "QA_PASSED"}
            and flags["COMPLETED"].actor != checker
        ]

    def accepted(self) -> list[int]:
        """List the shares that are completed and checked."""
        return [number for number, flags in self.shares.items() if flags.keys() >= {"COMPLETED", "QA_PASSED"}]


def share_key(number: int, flag: str) -> str:
    """Write the key of a share's signal."""
    return f"share/{number}/{flag}"
