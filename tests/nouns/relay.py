from __future__ import annotations

LIMITS = {
    "page": [
        "coordinator.relay_step($1::integer)",
    ],
}
