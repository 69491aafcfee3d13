from __future__ import annotations

LIMITS = {
    "job_words": [
        "coordinator.job_list('default', p_words => repeat('a', $1::integer))",
    ],
    "job_period_max": [
        "coordinator.job_stats('default', p_period => make_interval(secs => $1))",
    ],
    "page": [
        "coordinator.job_list('default', p_limit => $1::integer)",
        "coordinator.job_stats('default', p_limit => $1::integer)",
        "coordinator.worker_list('default', p_limit => $1::integer)",
        "coordinator.job_retry('default', p_status => '{failed}', p_limit => $1::integer)",
        "coordinator.job_prune(p_limit => $1::integer)",
    ],
    "ttl_min": [
        "coordinator.job_stats('default', p_period => make_interval(secs => $1))",
        "coordinator.job_prune(p_completed => make_interval(secs => $1))",
        "coordinator.job_prune(p_other => make_interval(secs => $1))",
    ],
    "ttl_max": [
        "coordinator.job_prune(p_completed => make_interval(secs => $1))",
        "coordinator.job_prune(p_other => make_interval(secs => $1))",
    ],
}
