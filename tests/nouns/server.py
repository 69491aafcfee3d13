from __future__ import annotations

NOT_IN_PYTHON = {
    "server_calls": "client.calls()",
    "server_sizes": "client.sizes()",
}
NOT_ON_THE_COMMAND_LINE = {
    "server_calls": "coordinator top",
    "server_sizes": "coordinator top",
}
