from __future__ import annotations

NOT_IN_PYTHON = {
    "doctor_run": "client.doctor()",
}
NOT_ON_THE_COMMAND_LINE = {
    "doctor_run": "coordinator doctor",
}

ARGUMENTS = {
    ("doctor_run", "checks"): "'{{leader}}'",
    ("doctor_fix", "check"): "'statistics'",
}
