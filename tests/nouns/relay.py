from __future__ import annotations

LIMITS = {
    "chunk": [
        "coordinator.relay_step($1::integer)",
    ],
}
