-- Gauges: what rates and budgets have in common (see limit.sql). Each job has a cost. A claim takes the best jobs, in order, while their
-- costs fit into what is left.

create or replace function coordinator.limit_cost(p_limit coordinator.job_limits, p_costs jsonb) returns bigint
language sql immutable parallel safe
return case
  when (p_limit).tree is not null then case (p_limit).kind when 'budget' then (p_limit).reserve else 1 end
  when (p_limit).kind = 'budget' then coalesce((p_costs ->> (p_limit).name)::bigint, (p_limit).reserve)
  else least(coalesce((p_costs ->> (p_limit).name)::bigint, 1), (p_limit).burst) end;
comment on function coordinator.limit_cost(coordinator.job_limits, jsonb) is
  'Return what a job with these costs takes from a limit. If a rate was lowered after the job was enqueued, that is at most the burst. A limit of a tree costs each of its jobs the same. Internal.';

create or replace function coordinator.limit_room(p_limit coordinator.job_limits, p_now timestamptz) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return case p_limit.kind when 'rate' then coordinator.limit_tokens(p_limit) else coordinator.limit_budget_left(p_limit, p_now) end;
end
$$;
comment on function coordinator.limit_room(coordinator.job_limits, timestamptz) is
  'Return how much jobs can take now from a rate or budget that the caller has locked (limit_enter_gauges). Internal.';

create or replace function coordinator.limit_fit(
  p_ids uuid[], p_limits bigint[], p_rooms bigint[], out jobs integer, out short bigint[], out need bigint[])
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  select coalesce(u.place - 1, cardinality(p_ids)), coalesce(u.limits, '{}'), u.costs into jobs, short, need
  from (values (1)) one
  left join (
    select s.place, array_agg(s.id order by s.id) as limits, array_agg(s.cost order by s.id) as costs
    from (select i.place, l.id, r.room, c.cost, sum(c.cost) over (partition by l.id order by i.place) as total
          from unnest(p_ids) with ordinality i (id, place)
          join coordinator.jobs_open j on j.id = i.id and j.id = any (p_ids)
          cross join unnest(p_limits, p_rooms) r (id, room)
          join coordinator.job_limits l on l.id = r.id
          cross join lateral (select coordinator.limit_cost(l, j.limits) as cost) c) s
    where s.total > s.room group by s.place order by s.place limit 1) u on true;
end
$$;
comment on function coordinator.limit_fit(uuid[], bigint[], bigint[]) is
  'Return how many of these jobs, from the first on, fit into what is left of rates and budgets (p_rooms). short: the limits that the next job exceeds; need: its cost in each. Internal.';

create or replace function coordinator.limit_fits(p_ids uuid[], p_limits bigint[], p_rooms bigint[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return not exists (
    select from unnest(p_limits, p_rooms) r (id, room) join coordinator.job_limits l on l.id = r.id
    where (select sum(coordinator.limit_cost(l, j.limits)) from coordinator.jobs_open j where j.id = any (p_ids)) > r.room);
end
$$;
comment on function coordinator.limit_fits(uuid[], bigint[], bigint[]) is
  'Whether all of these jobs fit into what is left of rates and budgets (p_rooms). Faster than limit_fit. Internal.';

create or replace function coordinator.limit_lock_gauges(p_limits bigint[], p_wait boolean) returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  if p_wait then
    perform from coordinator.job_buckets b where b.limit_id = any (p_limits) order by b.limit_id for no key update;
    perform from coordinator.job_budgets b where b.limit_id = any (p_limits) order by b.limit_id for no key update;
    return p_limits;
  end if;
  return array(select b.limit_id from coordinator.job_buckets b where b.limit_id = any (p_limits) order by b.limit_id for no key update skip locked)
         || array(select b.limit_id from coordinator.job_budgets b where b.limit_id = any (p_limits) order by b.limit_id for no key update skip locked);
end
$$;
comment on function coordinator.limit_lock_gauges(bigint[], boolean) is
  'Lock rates and budgets in the order of their ids, until the end of the transaction, and return the locked ones. Without p_wait, skip those that another transaction has locked. Internal.';

create or replace function coordinator.limit_enter_gauges(p_project_id bigint, p_types text[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  perform coordinator.limit_lock_gauges(array(select l from coordinator.job_classes c cross join unnest(c.limit_ids) l
                                              where c.project_id = p_project_id and c.type = any (p_types) and c.limit_ids <> '{}'), true);
end
$$;
comment on function coordinator.limit_enter_gauges(bigint, text[]) is
  'Lock the rates and budgets of jobs of these types, in the order of their ids, until the end of the transaction: claims that need the same one take turns. Internal.';

create or replace function coordinator.limit_take(p_ids uuid[], p_limits bigint[], p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  perform coordinator.limit_charge(p_ids, p_limits, p_now);
  perform coordinator.limit_take_tokens(l, (select sum(coordinator.limit_cost(l, j.limits)) from coordinator.jobs_open j where j.id = any (p_ids))::bigint, 0)
  from coordinator.job_limits l where l.id = any (p_limits) and l.kind = 'rate';
end
$$;
comment on function coordinator.limit_take(uuid[], bigint[], timestamptz) is
  'Take the costs of jobs that are being claimed from rates and budgets that the caller has locked. No event. Internal.';

create or replace function coordinator.limit_lack_gauges(p_limits bigint[], p_need bigint[], p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit coordinator.job_limits;
  v_place integer;
begin
  for v_place in 1..cardinality(p_limits) loop
    select * into v_limit from coordinator.job_limits l where l.id = p_limits[v_place];
    if v_limit.kind = 'rate' then
      perform coordinator.limit_take_tokens(v_limit, 0, p_need[v_place]);
    else
      update coordinator.job_budgets b set lacking = p_need[v_place] where b.limit_id = v_limit.id and b.lacking is distinct from p_need[v_place];
      perform coordinator.limit_lack(v_limit.id, coordinator.limit_period_end(v_limit.period, p_now));
      perform coordinator.limit_exhaust(v_limit, 'coordinator', p_now);
    end if;
  end loop;
end
$$;
comment on function coordinator.limit_lack_gauges(bigint[], bigint[], timestamptz) is
  'Record that a claim, which has locked these rates and budgets, found a job that needs more of them than is left. Workers are woken when enough is available. Internal.';
