from __future__ import annotations

METADATA = "(select jsonb_object_agg('m' || n, n) from generate_series(1, $1::integer) n)"

LIMITS = {
    "knowledge_content": ["coordinator.knowledge_put('default', 'k', repeat('x', $1::integer))"],
    "knowledge_title": ["coordinator.knowledge_put('default', 'k', 'x', repeat('ü', $1::integer))"],
    "knowledge_type": ["coordinator.knowledge_put('default', 'k', 'x', p_source_type => repeat('ü', $1::integer))"],
    "knowledge_source": ["coordinator.knowledge_put('default', 'k', 'x', p_source_url => repeat('ü', $1::integer))"],
    "knowledge_metadata": [
        f"coordinator.knowledge_put('default', 'k', 'x', p_metadata => {METADATA})",
        f"count(*) from coordinator.knowledge_search('default', 'x', p_metadata => {METADATA})",
        f"count(*) from coordinator.knowledge_list('default', p_metadata => {METADATA})",
    ],
    "key": ["coordinator.knowledge_put('default', repeat('ü', $1::integer), 'x')"],
    "page": [
        "coordinator.knowledge_list('default', p_limit => $1::integer)",
        "coordinator.knowledge_search('default', 'x', p_limit => $1::integer)",
    ],
}
