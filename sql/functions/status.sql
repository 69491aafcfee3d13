-- Status: one answer to "is it well, and how much is there?", for people.

insert into coordinator.rights (function, role) values
  ('status_show', 'reader');

create or replace function coordinator.status_show(p_project text)
returns table (postgres text, schema_version text, schema_applied_at timestamptz, leader text, daemon_count bigint, project text,
               agent_count bigint, signal_count bigint, directive_count bigint, lock_count bigint, waiting_count bigint, head text,
               warnings text[])
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  select p.name into leader from coordinator.leaders l join coordinator.processes p on p.id = l.process_id
  where l.expires_at > clock_timestamp() and coordinator.process_alive(p.id);
  return query
    select current_setting('server_version'), f.program, f.applied_at, leader,
           (select count(*) from coordinator.processes where kind = 'daemon' and coordinator.process_alive(id)),
           c.project, c.agent_count, c.signal_count, c.directive_count, c.lock_count,
           (select count(*) from coordinator.lock_waits where project_id = v_project and expires_at > coordinator.now_utc()),
           coordinator.event_head(),
           array_remove(array[
             case when leader is null
                  then 'No daemon leads: events are not numbered and nothing expires. Start one with "coordinator serve".' end,
             case when pg_is_in_recovery() then 'The database is a standby: it accepts no writes.' end,
             case when pg_notification_queue_usage() > 0.5
                  then format('The notification queue is %s %% full: end the listener that does not read.',
                              round(100 * pg_notification_queue_usage())) end,
             (select format('Contents of artifacts have waited for the object store %s since %s: see "loop.failed" in the log of the leader.',
                            o.store, to_char(min(o.created_at) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'))
              from coordinator.artifact_objects o
              where o.blob_id is not null and o.stored_at is null and o.created_at < coordinator.now_utc() - interval '1 minute'
              group by o.store order by min(o.created_at) limit 1),
             (select format('%s objects of %s wait for their deletion: a daemon with this artifact_store deletes them.', count(*), o.store)
              from coordinator.artifact_objects o
              where o.blob_id is null and o.due_at < coordinator.now_utc() - interval '1 hour'
              group by o.store order by o.store limit 1),
             (select format('%s webhooks of the project are disabled: see "coordinator webhook list", and resume them.', count(*))
              from coordinator.webhooks w where w.project_id = v_project and w.disabled having count(*) > 0),
             case when not coordinator.server_settled()
                  then 'The database started or failed over a moment ago: no agent is reaped for 10 seconds.' end
           ], null)
    from coordinator.project_show(p_project) c
    cross join (select program, applied_at from coordinator.schema_files order by applied_at desc, name limit 1) f;
end
$$;
comment on function coordinator.status_show(text) is
  'Show which server, schema and leader there are, how much a project holds (live agents and signals, open directives, held locks, waiting tickets), the cursor of the newest event, and what needs attention.';
