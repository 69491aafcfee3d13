from __future__ import annotations

JSON_UNREAD = {
    "step_append": "it keeps the text: see test_log.py",
}

ARGUMENTS = {
    ("step_append", "step"): """'{{"thought": "x"}}'""",
}

PYTHON_LACKS = {
    "step_append": {"epoch": "of what expect takes", "step": "made of its parts"},
}
PYTHON_ADDS = {
    "step_append": {"thought": "of the step", "action": "of the step", "observation": "of the step"},
}
OPTIONS_LACK = {
    "step_append": {"step": "made of its parts"},
}
OPTIONS_ADD = {
    "step_append": {"thought": "of the step", "action": "of the step", "observation": "of the step"},
}
