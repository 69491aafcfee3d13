-- Status: a summary for people: whether everything works, and how much there is.

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
           array(select concat_ws(' ', d.message, d.remedy) from coordinator.doctor_examine('{leader,notifications,objects}') d where d.severity <> 'ok')
           || array_remove(array[
             case when pg_is_in_recovery() then 'The database is a standby: it accepts no writes.' end,
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
  'Show the server, the schema, the leader, the contents of a project (live agents and signals, open directives, held locks, waiting tickets), the cursor of the newest event, and what needs attention.';
