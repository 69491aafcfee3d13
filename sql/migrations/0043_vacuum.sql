-- Tables whose rows come and go: their dead rows are removed after a fiftieth of the rows, and by a vacuum that does not pause. By default a fifth
-- of the table may be dead, so reads of the oldest rows pass over many dead ones.

do $$
declare
  v_table text;
begin
  foreach v_table in array array[
    'agents', 'agents_ended', 'directive_receipts', 'directives', 'files_seen', 'idempotency_keys', 'job_classes', 'job_dedupes', 'job_lanes',
    'job_lock_turns', 'job_lock_waits', 'job_placements', 'job_waits', 'job_watches', 'jobs_unsettled', 'lock_waits', 'locks', 'logs', 'processes',
    'queues', 'sessions', 'signals', 'webhook_deliveries', 'webhooks']
  loop
    execute format('alter table coordinator.%I set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200,'
                   ' autovacuum_vacuum_cost_delay = 0)', v_table);
  end loop;
  -- A few rows that are updated all the time.
  foreach v_table in array array['artifact_usage', 'job_wait_log', 'leaders', 'relay', 'webhook_log'] loop
    execute format('alter table coordinator.%I set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100,'
                   ' autovacuum_vacuum_cost_delay = 0)', v_table);
  end loop;
end
$$;
