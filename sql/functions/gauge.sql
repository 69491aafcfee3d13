-- Gauges: what the metrics endpoint reports about the database's contents.

create or replace function coordinator.row_count(p_table regclass) returns bigint
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint := (select reltuples from pg_class where oid = p_table);
begin
  if v_count < 100000 then
    execute format('select count(*) from (select from %s limit 200000) r', p_table) into v_count;
  end if;
  return v_count;
end
$$;
comment on function coordinator.row_count(regclass) is
  'Return the number of rows of a table: counted, or taken from the planner''s statistics if there are many. Internal.';

create or replace function coordinator.gauge_sample() returns table (name text, value double precision)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query values
    ('projects',             coordinator.row_count('coordinator.projects')::double precision),
    ('agents',               coordinator.row_count('coordinator.agents')::double precision),
    ('signals',              coordinator.row_count('coordinator.signals')::double precision),
    ('directives_open',      (select count(*) from coordinator.directives where status = 'open')::double precision),
    ('locks',                coordinator.row_count('coordinator.locks')::double precision),
    ('lock_waits',           coordinator.row_count('coordinator.lock_waits')::double precision),
    ('jobs_queued',          coordinator.row_count('coordinator.jobs_ready')::double precision),
    ('jobs_scheduled',       coordinator.row_count('coordinator.jobs_later')::double precision),
    ('jobs_waiting',         coordinator.row_count('coordinator.jobs_waiting')::double precision),
    ('jobs_running',         coordinator.row_count('coordinator.jobs_running')::double precision),
    ('artifact_objects_waiting', (select count(*) from coordinator.artifact_objects where blob_id is null or stored_at is null)::double precision),
    ('webhooks_waiting',     (select count(*) from coordinator.webhook_deliveries where status = 'waiting')::double precision),
    ('webhooks_dead',        (select count(*) from coordinator.webhook_deliveries where status = 'dead')::double precision),
    ('webhooks_disabled',    (select count(*) from coordinator.webhooks where disabled)::double precision),
    ('webhook_lag_seconds',  (select coalesce(extract(epoch from coordinator.now_utc() - min(d.at)), 0) from coordinator.webhook_deliveries d
                              join coordinator.webhooks w on w.id = d.webhook_id and w.paused_at is null where d.status = 'waiting')::double precision),
    ('processes',            coordinator.row_count('coordinator.processes')::double precision),
    ('event_head_seq',       (select last_seq from coordinator.event_chunks order by first_seq desc limit 1)::double precision),
    ('event_floor_seq',      (select last_value from coordinator.event_floor)::double precision),
    ('events_waiting',       coordinator.events_waiting(100000)::double precision),
    ('event_headroom',       coordinator.event_headroom()::double precision),
    ('notification_queue_usage', pg_notification_queue_usage()),
    ('database_size_bytes',  pg_database_size(current_database())::double precision);
end
$$;
comment on function coordinator.gauge_sample() is
  'Return the gauges of the metrics endpoint by name. Sampled by the leader.';
