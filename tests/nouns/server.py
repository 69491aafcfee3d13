from __future__ import annotations

NOT_IN_PYTHON = {
    "server_calls": "client.calls()",
}
NOT_ON_THE_COMMAND_LINE = {
    "server_calls": "coordinator top",
}
