from __future__ import annotations

from coordinator.operations import events
from tests.conftest import Transaction

LIMITS = {
    "key": [
        "coordinator.event_emit('default', 'custom.x', repeat('a', $1::integer))",
        "coordinator.events_since('now', p_keys => array[repeat('*', $1::integer)])",
    ],
    "json": [
        "coordinator.event_emit('default', 'custom.x', p_data => jsonb_build_object('k', repeat('x', $1::integer - 9)))",
    ],
    "list": [
        "coordinator.events_since('now', p_topics => array_fill('a.b'::text, array[$1::integer]))",
        "coordinator.events_since('now', p_keys => array_fill('a/*'::text, array[$1::integer]))",
        "coordinator.events_since('now', p_actors => array_fill('a'::text, array[$1::integer]))",
    ],
    "page": [
        "coordinator.events_since(p_limit => $1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.run(events.Configure(payloads="pointer"))
