-- The loop that fires crons.

create or replace function coordinator.cron_order(p_job jsonb, p_at timestamptz) returns jsonb
language sql stable parallel safe
return replace(p_job::text, '{fire_at}', to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"'))::jsonb;
comment on function coordinator.cron_order(jsonb, timestamptz) is
  'Return the job that a cron enqueues for an instant. Internal.';

create or replace function coordinator.cron_run(p_project text, p_cron text, p_actor text default null)
returns setof coordinator.job_receipt
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_job     jsonb;
begin
  select c.job into v_job from coordinator.crons c where c.project_id = v_project and c.name = p_cron;
  if not found then
    perform coordinator.cron_missing(p_project, p_cron);
  end if;
  return query select * from coordinator.job_insert(p_project, jsonb_build_array(coordinator.cron_order(v_job, coordinator.now_utc())), v_actor, true);
end
$$;
comment on function coordinator.cron_run(text, text, text) is
  'Enqueue the job of a cron now, even if the cron is paused. Its next time does not change. ZC214: there is no such cron.';

create or replace function coordinator.cron_fire(p_limit integer default 100) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now     timestamptz := coordinator.now_utc();
  v_project record;
  v_crons   coordinator.crons[];
  v_count   integer;
  v_error   text;
begin
  perform coordinator.check_page(p_limit);
  -- Crons of one project: one call enqueues their jobs and takes all locks in order.
  select p.id, p.name into v_project from coordinator.crons c join coordinator.projects p on p.id = c.project_id
  where c.due_at <= v_now order by c.due_at limit 1 for key share of p skip locked for no key update of c skip locked;
  v_crons := array(
    select c from coordinator.crons c
    where c.project_id = v_project.id and c.due_at <= v_now order by c.due_at, c.name limit p_limit for no key update skip locked);
  v_count := cardinality(v_crons);
  while v_count > 0 loop
    begin
      perform coordinator.cron_enqueue(v_project.name, v_crons[:v_count], v_now);
      return v_count;
    exception
      when query_canceled or operator_intervention then
        raise;
      when lock_not_available then
        v_error := sqlerrm;
        exit; -- the others would wait as well
      when others then
        v_error := sqlerrm;
        exit when v_count = 1;
        v_count := v_count / 2; -- until the failing one is alone
    end;
  end loop;
  if v_error is not null then
    perform coordinator.event_append('cron.failed', v_project.name, c.name, 'coordinator', v_now,
                                     jsonb_build_object('fire_at', c.next_at, 'error', left(v_error, 2000)))
    from unnest(v_crons[:v_count]) c where c.error is null;
    update coordinator.crons c set due_at = v_now + interval '1 minute', error = left(v_error, 2000)
    from unnest(v_crons[:v_count]) f where c.project_id = f.project_id and c.name = f.name;
  end if;
  return v_count;
end
$$;
comment on function coordinator.cron_fire(integer) is
  'Enqueue the jobs of up to p_limit crons that are due; returns how many crons. Repeat until 0.';

create or replace function coordinator.cron_enqueue(p_project text, p_crons coordinator.crons[], p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_orders  jsonb := '[]';
  v_names   text[] := '{}'; -- of each job
  v_times   timestamptz[] := '{}';
  v_jobs    uuid[] := '{}';
  v_cron    coordinator.crons;
  v_next    timestamptz;
begin
  foreach v_cron in array p_crons loop
    v_next := v_cron.next_at;
    if v_cron.missed = 'skip' and v_next < p_now - interval '1 minute' then
      v_next := coordinator.cron_next(v_cron.schedule, v_cron.zone, p_now - interval '1 minute');
      perform coordinator.event_append('cron.skipped', p_project, v_cron.name, 'coordinator', p_now,
                                       jsonb_build_object('fire_at', v_cron.next_at, 'next_at', v_next));
    elsif v_cron.missed = 'once' then
      v_next := coordinator.cron_last(v_cron.schedule, v_cron.zone, v_next, p_now);
    end if;
    for v_n in 1..30 loop -- one call enqueues up to 32 jobs of the maximum size; the rest follow in the next run
      exit when v_next > p_now;
      v_orders := v_orders || coordinator.cron_order(v_cron.job, v_next);
      v_names := v_names || v_cron.name;
      v_times := v_times || v_next;
      v_next := coordinator.cron_next(v_cron.schedule, v_cron.zone, v_next);
    end loop;
    update coordinator.crons c set next_at = v_next, due_at = v_next, error = null
    where c.project_id = v_cron.project_id and c.name = v_cron.name;
  end loop;
  if v_names = '{}' then
    return;
  end if;
  v_jobs := array(select r.id from coordinator.job_insert(p_project, v_orders, 'coordinator', true) r);
  update coordinator.crons c set last_at = l.at, last_job = l.job
  from (select distinct on (u.name) u.* from unnest(v_names, v_times, v_jobs) u (name, at, job) order by u.name, u.at desc) l
  where c.project_id = p_crons[1].project_id and c.name = l.name;
  perform coordinator.event_append('cron.fired', p_project, u.name, 'coordinator', p_now,
                                   jsonb_build_object('fire_at', u.at, 'job', u.job, 'next_at', c.next_at))
  from unnest(v_names, v_times, v_jobs) u (name, at, job)
  join coordinator.crons c on c.project_id = p_crons[1].project_id and c.name = u.name;
end
$$;
comment on function coordinator.cron_enqueue(text, coordinator.crons[], timestamptz) is
  'Enqueue the jobs of due crons of one project, and compute their next times. Internal.';
