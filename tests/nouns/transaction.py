from __future__ import annotations

EMIT = "jsonb_build_object('verb', 'event_emit', 'type', 'custom.x')"

LIMITS = {
    "key": [
        "coordinator.assert_signal('default', repeat('a', $1::integer), 0)",
    ],
    "transaction": [
        f"coordinator.transaction_run('default', (select jsonb_agg({EMIT}) from generate_series(1, $1::integer)))",
    ],
    "transaction_bytes": [
        # Forty-one writes of 200 kB, and one that fills what is left.
        f"""coordinator.transaction_run('default', b || jsonb_build_array({EMIT} || jsonb_build_object(
              'data', jsonb_build_object('k', repeat('x', $1::integer - octet_length(b::text) - 63)))))
            from (select jsonb_agg({EMIT} || jsonb_build_object('data', jsonb_build_object('k', repeat('x', 200000)))) as b
                  from generate_series(1, 41)) most""",
    ],
}

JSON = {
    "transaction_run": """from coordinator.transaction_run('default', jsonb_build_array(
                            jsonb_build_object('verb', 'signal_set', 'key', 'k', 'value', $1::text::jsonb)))""",
}
JSON_UNREAD = {
    "transaction_enter": "it checks the parts and takes their locks for transaction_run",
}

ARGUMENTS = {
    "writes": """'[{{"verb": "event_emit", "type": "custom.x"}}]'""",
}

OPTIONS_LACK = {
    "transaction_run": {"writes": "in the file", "conditions": "in the file"},
}
OPTIONS_ADD = {
    "transaction_run": {"parts": "the file"},
}
