from __future__ import annotations

NOT_IN_PYTHON = {
    "status_show": "client.status()",
}
NOT_ON_THE_COMMAND_LINE = {
    "status_show": "coordinator status",
}
