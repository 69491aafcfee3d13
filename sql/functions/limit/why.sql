-- Why a job waits for a limit (see limit.sql): part of job_why.

create or replace function coordinator.limit_why(
  p_job coordinator.jobs_open, out cause text, out sentence text, out until timestamptz, out names text[])
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_limit coordinator.job_limits;
  v_live  coordinator.job_limits_live;
  v_cost  bigint;
  v_for   text; -- whose it is, if it is per key
  v_of    text;
  v_first text; -- who uses most, or has had its slot for the longest time
  v_most  text;
  v_used  bigint;
  v_workers text[];
begin
  for v_limit in
    select l.* from coordinator.job_limits l
    where l.id = any (array(select k from coordinator.job_classes c cross join unnest(c.limit_ids) k where c.id = p_job.class_id))
       or l.project_id = p_job.project_id and l.tree = coalesce(p_job.root_id, p_job.id) order by l.held_until > v_now desc nulls last, array_position(array['slots', 'budget', 'rate'], l.kind), l.id
  loop
    select l.* into v_live from coordinator.job_limits_live l join coordinator.projects p on p.name = l.project
    where p.id = p_job.project_id and l.name = v_limit.name;
    v_cost := coordinator.limit_cost(v_limit, p_job.limits);
    v_for := case when v_limit.per_key then format(' for key "%s"', p_job.key) else '' end;
    v_of := case when v_limit.tree is not null then ' of its tree' else '' end;
    if v_limit.per_key and v_limit.kind <> 'slots' and p_job.key is not null then
      v_live.free := greatest(0, coordinator.limit_key_room(v_limit, coordinator.limit_hash(p_job.project_id, p_job.key), v_now));
      v_live.users := '[]';
    end if;
    v_first := format('type "%s"', v_live.users -> 0 ->> 'type') || coalesce(' with key "' || (v_live.users -> 0 ->> 'key') || '"', '');
    v_most := case when v_live.users <> '[]' then format('; the largest user is %s (%s)', v_first, v_live.users -> 0 ->> 'used') end;
    if v_live.held_until is not null then
      cause := 'held';
      until := v_live.held_until;
      names := array[v_live.held_by];
      sentence := format('Limit "%s"%s is held by "%s" until %s%s.', v_limit.name, v_of, v_live.held_by, coordinator.job_instant(until),
                         coalesce(': ' || v_live.hold_reason, ''));
    elsif v_limit.kind = 'slots' and (not v_limit.per_key or p_job.key is not null) then
      select count(*), (array_agg(distinct coordinator.job_worker(h.agent_id)) filter (where h.place <= 10)),
             min(format('job %s of type "%s" on worker "%s"', h.id, h.type, coordinator.job_worker(h.agent_id))) filter (where h.place = 1)
      into v_used, v_workers, v_first
      from (select j.id, j.type, r.agent_id, row_number() over (order by r.started_at, r.id) as place
            from coordinator.jobs_running r join coordinator.jobs_open j on j.id = r.id
            where v_limit.id = any (r.slots) and (not v_limit.per_key or j.key = p_job.key)) h;
      if v_used >= v_limit.slots then
        cause := 'limit';
        names := v_workers;
        sentence := format('Limit "%s"%s is full%s: ', v_limit.name, v_of, v_for)
                    || case v_limit.slots when 1 then format('%s has its slot.', v_first)
                                          else format('running jobs have all of its %s slots, the first of them %s%s.', v_limit.slots, v_first,
                                                      case when v_limit.per_key or v_limit.tree is not null then '' else v_most end) end;
      end if;
    elsif v_limit.kind = 'budget' and (v_live.free = 0 or v_live.free < v_cost) then
      cause := 'budget';
      until := v_live.resets_at;
      sentence := concat(format('Budget "%s"%s has %s of %s left%s%s', v_limit.name, v_of, v_live.free, v_limit.budget, v_for,
                                coalesce(' until ' || coordinator.job_instant(until), '')),
        case when v_cost > v_limit.budget then format(', and it costs %s: more than the whole budget', v_cost)
             when v_live.free > 0 then format(', and it costs %s', v_cost) end, v_most, '.');
    elsif v_limit.kind = 'rate' and v_live.free < v_cost then
      cause := 'rate';
      sentence := format('Limit "%s"%s lets %s start in %s%s, and has %s left now%s.', v_limit.name, v_of, v_limit.rate, coordinator.duration_text(v_limit.per), v_for,
                         v_live.free, case when v_cost > 1 then format('; it costs %s', v_cost) else '' end);
    end if;
    exit when cause is not null;
  end loop;
end
$$;
comment on function coordinator.limit_why(coordinator.jobs_open) is
  'Say which limit stops a queued job; cause is null if none does: held, limit, budget or rate. Internal.';
