from __future__ import annotations

JSON_UNREAD = {
    "observation_append": "it keeps the text: see test_log.py",
}

ARGUMENTS = {
    ("observation_append", "content"): "'1'",
    ("observation_append", "agent"): "'a'",
}

NOT_ON_THE_COMMAND_LINE = {
    "observation_append": "coordinator observe",
}
