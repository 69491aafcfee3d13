-- Holds (see limit.sql). While a limit of any kind is held, no job that needs it is claimed. When the hold ends or is released,
-- limit_refill wakes the workers.

insert into coordinator.event_types (type, key, data, meaning) values
  ('limit.held', 'name of the limit', '{until,reason}', 'A limit was held. No job that needs it starts before until.');

insert into coordinator.rights (function, role) values
  ('limit_hold',    'agent'),
  ('limit_release', 'agent');

create or replace function coordinator.limit_hold(
  p_project text, p_name text, p_ttl interval, p_reason text default null, p_actor text default null)
returns setof coordinator.job_limits_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_limit   bigint;
  v_now     timestamptz;
begin
  if p_ttl is null or extract(epoch from p_ttl) not between 1 and 31622400 then
    raise exception using errcode = 'ZC104', message = format('a hold of %s is out of range', coalesce(coordinator.duration_text(p_ttl), 'null')),
      hint = 'Give 1s to 366d.';
  end if;
  perform coordinator.check_reason(p_reason);
  select l.id into v_limit from coordinator.job_limits l where l.project_id = v_project and l.name = p_name for no key update;
  if not found then
    perform coordinator.limit_missing(p_project, p_name);
  end if;
  v_now := coordinator.now_utc(); -- after the lock
  update coordinator.job_limits l set held_until = v_now + p_ttl, held_by = v_actor, hold_reason = p_reason
  where l.id = v_limit and (l.held_until is null or l.held_until < v_now + p_ttl);
  if found then
    perform coordinator.event_append('limit.held', p_project, p_name, v_actor, v_now,
      jsonb_build_object('until', v_now + p_ttl, 'reason', p_reason));
  end if;
  return query select * from coordinator.job_limits_live l where l.project = p_project and l.name = p_name;
end
$$;
comment on function coordinator.limit_hold(text, text, interval, text, text) is
  'Hold a limit for p_ttl, 1 second to 366 days: after the commit, no job that needs it is claimed; running jobs continue. A current hold that ends later is kept. ZC211: there is no such limit.';

create or replace function coordinator.limit_release(p_project text, p_name text, p_actor text default null)
returns setof coordinator.job_limits_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_now     timestamptz := coordinator.now_utc();
begin
  update coordinator.job_limits l set held_until = null, held_by = null, hold_reason = null
  where l.project_id = v_project and l.name = p_name and l.held_until > v_now;
  if found then
    perform coordinator.event_append('limit.freed', p_project, p_name, v_actor, v_now, '{}');
    perform coordinator.limit_wake_trees(array[l.id], null, v_actor, v_now) from coordinator.job_limits l where l.project_id = v_project and l.name = p_name;
  end if;
  return query select * from coordinator.job_limits_live l where l.project = p_project and l.name = p_name;
  if not found then
    perform coordinator.limit_missing(p_project, p_name);
  end if;
end
$$;
comment on function coordinator.limit_release(text, text, text) is
  'End the hold of a limit, and return the limit; a limit that is not held is returned unchanged. ZC211: there is no such limit.';
