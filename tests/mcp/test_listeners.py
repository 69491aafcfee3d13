"""How many may listen, and for whom."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from coordinator.api.problems import Overloaded
from coordinator.mcp.listeners import Listeners


def test_a_token_gets_half_and_all_together_no_more_than_there_is_room_for() -> None:
    listeners = Listeners(5)
    with ExitStack() as stack:
        for token in ("a", "b", "a", "b", "a"):
            stack.enter_context(listeners.one(token))
        for token in ("a", "c", ""):
            with pytest.raises(Overloaded, match="its maximum") as refusal, listeners.one(token):
                pass
            assert "mcp_listeners" in (refusal.value.hint or "")
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(listeners.one("a"))
        with pytest.raises(Overloaded, match="its share"), listeners.one("a"):
            pass
        with listeners.one("b"):
            pass


def test_open_access_has_no_shares() -> None:
    listeners = Listeners(2)
    with listeners.one(""), listeners.one(""), pytest.raises(Overloaded), listeners.one(""):
        pass
    with listeners.one("a"):
        pass
