from __future__ import annotations

LIMITS = {
    "name": [
        "coordinator.process_register('client', repeat('a', $1::integer))",
    ],
}

ARGUMENTS = {
    ("process_register", "kind"): "'daemon'",
}
