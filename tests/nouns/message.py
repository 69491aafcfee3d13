from __future__ import annotations

LIMITS = {
    "name": ["coordinator.message_append('default', 's', '\"x\"', repeat('a', $1::integer))"],
    "key": ["coordinator.message_append('default', repeat('ä', $1::integer), '\"x\"', 'user')"],
    "window": [
        f"coordinator.message_window('default', 's', {limit} => $1::integer)" for limit in ("p_last", "p_turns")
    ],
}

JSON_UNREAD = {
    "message_append": "it keeps the text: see test_log.py",
}

ARGUMENTS = {
    "content": "'a text'",
    ("message_append", "content"): "'1'",
    ("message_append", "role"): "'user'",
    ("message_window", "last"): "1",
}

PYTHON_LACKS = {
    "message_append": {"epoch": "of what expect takes"},
}
OPTIONS_ADD = {
    "message_append": {"json": "how the argument is read"},
    "message_window": {"data": "the output"},
}
