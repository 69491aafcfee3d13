from __future__ import annotations

LIMITS = {
    "name": ["coordinator.message_append('default', 's', '\"x\"', repeat('a', $1::integer))"],
    "key": ["coordinator.message_append('default', repeat('ä', $1::integer), '\"x\"', 'user')"],
    "window": [
        f"coordinator.message_window('default', 's', {limit} => $1::integer)" for limit in ("p_last", "p_turns")
    ],
}
