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

JSON = {
    "event_emit": "coordinator.event_emit('default', 'custom.x', p_data => jsonb_build_object('k', $1::text::jsonb))",
}

ARGUMENTS = {
    "type": "'custom.x'",
    "payloads": "'full'",
}

NOT_ON_THE_COMMAND_LINE = {
    "events_since": "event tail",
}
PYTHON_LACKS = {
    "events_since": {"bookmarks": "the page has the cursor"},
}
PYTHON_ADDS = {
    "events_since": {"everywhere": "project=None would mean the client's own"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(events.Configure(payloads="pointer"))
