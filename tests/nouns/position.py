from __future__ import annotations

NOT_IN_PYTHON = {
    "position_included": "client.at_least(…) waits",
}
NOT_ON_THE_COMMAND_LINE = {
    "position_included": "--at-least waits",
}
