"""How calls of the database are measured: not at all, until a process imports ``metrics``.

A program that makes a few calls and ends shows no metrics, and importing their library takes a third of the time that
such a program runs.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["CALL_METER", "CallMeter"]


Timer = Callable[[float, dict[str, str] | None], None]


class CallMeter:
    """``timer`` returns a function that receives the seconds of each call, with its span as an exemplar; ``failed`` counts failures by function and SQLSTATE.

    A function keeps the timer that it had at its first call.
    """

    def __init__(self) -> None:
        self.timer: Callable[[str], Timer] = lambda _function: lambda _seconds, _exemplar: None
        self.failed: Callable[[str, str], None] = lambda _function, _sqlstate: None


CALL_METER = CallMeter()
