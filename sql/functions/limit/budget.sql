-- Budgets (see limit.sql). job_charges has a row for each attempt and budget: what the attempt reserves and spends.
--
-- A claim locks the row of the budget (job_budgets), adds the charges up, and inserts its own. So what claims reserve never exceeds what
-- is left. job_spend adds what was really spent, even beyond the budget, because it was spent; the budget is then exhausted. The end of
-- an attempt changes only its own row, so it never waits for claims. Everything that an attempt costs belongs to the period of its claim.

insert into coordinator.event_types (type, key, data, meaning) values
  ('limit.exhausted', 'name of the limit', '{spent,budget,until,key}', 'A budget is used up. No job that needs it starts before until; null: before the budget is raised. key: the key whose budget it is; null: the budget is not per key.');

insert into coordinator.rights (function, role) values
  ('job_spend', 'agent');

insert into coordinator.limits (name, value, unit, meaning) values
  ('job_spend', 1000000000000000, '', 'Amount that one report adds to a job''s spending, in the units of the budget.');

create or replace function coordinator.limit_period(p_period text, p_at timestamptz) returns timestamptz
language sql stable parallel safe
return case p_period when 'ever' then '-infinity' else date_trunc(p_period, p_at, 'UTC') end;
comment on function coordinator.limit_period(text, timestamptz) is
  'Return the start of the period of a budget that contains an instant; -infinity for the period ever. Internal.';

create or replace function coordinator.limit_period_end(p_period text, p_at timestamptz) returns timestamptz
language sql stable parallel safe
return case p_period when 'hour' then date_trunc('hour', p_at, 'UTC') + interval '1 hour' when 'day' then date_trunc('day', p_at, 'UTC') + interval '24 hours' end;
comment on function coordinator.limit_period_end(text, timestamptz) is
  'Return the end of the period of a budget that contains an instant; null for the period ever. Internal.';

create or replace function coordinator.limit_charged(p_limit bigint, p_period_at timestamptz, out used bigint, out spent bigint, out settled bigint)
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
begin atomic
  select least(coalesce(sum(greatest(c.reserved, c.spent)), 0), 9000000000000000000)::bigint,
         least(coalesce(sum(c.spent), 0), 9000000000000000000)::bigint, count(*) filter (where c.job_id is null)
  from coordinator.job_charges c where c.limit_id = p_limit and c.period_at = p_period_at;
end;
comment on function coordinator.limit_charged(bigint, timestamptz) is
  'Add up the charges of a budget in a period. used: reserved or spent; spent: the part that is spent; settled: the number of settled rows. Internal.';

create or replace function coordinator.limit_budget_left(p_limit coordinator.job_limits, p_now timestamptz) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_period timestamptz := coordinator.limit_period(p_limit.period, p_now);
  v_sum    record;
begin
  select * into v_sum from coordinator.limit_charged(p_limit.id, v_period);
  if v_sum.settled > 100 then
    -- Merge them into one row. Keep the previous period, in case the clock is set back.
    with gone as (
      delete from coordinator.job_charges c where c.limit_id = p_limit.id and c.job_id is null returning c.period_at, c.spent)
    insert into coordinator.job_charges (limit_id, period_at, spent)
    select p_limit.id, g.period_at, least(sum(g.spent), 9000000000000000000) from gone g
    where g.period_at >= coalesce(v_period - (coordinator.limit_period_end(p_limit.period, p_now) - v_period), v_period) group by g.period_at;
  end if;
  return p_limit.budget - v_sum.used;
end
$$;
comment on function coordinator.limit_budget_left(coordinator.job_limits, timestamptz) is
  'Return how much a claim may still reserve of a budget; it may be negative. The caller has locked its row in job_budgets. No event. Internal.';

create or replace function coordinator.limit_charge(p_ids uuid[], p_limits bigint[], p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  insert into coordinator.job_charges (limit_id, period_at, job_id, reserved)
  select l.id, coordinator.limit_period(l.period, p_now), j.id, coordinator.limit_cost(l, j.limits)
  from coordinator.job_limits l, coordinator.jobs_open j
  where l.id = any (p_limits) and l.kind = 'budget' and j.id = any (p_ids);
end
$$;
comment on function coordinator.limit_charge(uuid[], bigint[], timestamptz) is
  'Reserve the costs of jobs that are being claimed in those of the limits that are budgets. The caller has locked their rows in job_budgets. No event. Internal.';

create or replace function coordinator.limit_settle(p_ids uuid[], p_outcome text, p_by text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_limits bigint[];
  v_keyed  bigint[];
  v_hashes bigint[];
begin
  with old as materialized (
    select c.ctid as place, greatest(c.reserved, c.spent) as charge,
           case when p_outcome in ('worker_lost', 'stalled', 'deadline') then greatest(c.reserved, c.spent)
                when p_outcome in ('completed', 'failed') then coalesce(c.spent, c.reserved)
                else coalesce(c.spent, 0) end as cost
    from coordinator.job_charges c where c.job_id = any (p_ids)),
  settled as (
    update coordinator.job_charges c set job_id = null, reserved = 0, spent = o.cost
    from old o where c.ctid = o.place and c.ctid = any (array(select x.place from old x))
    returning c.limit_id, c.hash, o.charge > o.cost as frees)
  select array_agg(distinct s.limit_id order by s.limit_id), array_agg(k.limit_id) filter (where k.parked), array_agg(k.hash) filter (where k.parked)
  into v_limits, v_keyed, v_hashes
  from settled s
  left join lateral (select * from coordinator.job_keys k where k.limit_id = s.limit_id and k.hash = s.hash offset 0) k on true where s.frees;
  if v_keyed is not null then
    perform coordinator.limit_unpark_lanes(v_keyed, v_hashes);
  end if;
  if v_limits is not null then
    perform coordinator.limit_wake(v_limits, p_by, p_now);
    if exists (select from coordinator.job_limits l where l.id = any (v_limits) and l.tree is not null) then
      perform coordinator.limit_wake_trees(v_limits, null, p_by, p_now);
    end if;
  end if;
end
$$;
comment on function coordinator.limit_settle(uuid[], text, text, timestamptz) is
  'Replace what ending attempts reserved of budgets by their actual cost. This is what they reported, or what they reserved if they reported nothing. If they died, it is the greater of both; otherwise, for instance if they were snoozed or released, only what they reported. Wake workers and jobs of trees that lacked what this frees. Internal.';

create or replace function coordinator.limit_exhaust(p_limit coordinator.job_limits, p_by text, p_now timestamptz, p_hash bigint default null) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_period  timestamptz := coordinator.limit_period(p_limit.period, p_now);
  v_until   timestamptz := coordinator.limit_period_end(p_limit.period, p_now);
  v_key     text := (select k.key from coordinator.job_keys k where k.limit_id = p_limit.id and k.hash = p_hash);
  v_spent   bigint := case when p_hash is null then (coordinator.limit_charged(p_limit.id, v_period)).spent
                           else (coordinator.limit_charged_key(p_limit.id, v_period, p_hash)).spent end;
  v_reason  text := format('budget "%s" is exhausted', p_limit.name) || coalesce(' for key "' || v_key || '"', '');
  v_project text;
  v_running uuid[] := '{}';
  v_ids     uuid[] := '{}';
begin
  if v_spent < p_limit.budget then
    return false;
  end if;
  select p.name into v_project from coordinator.projects p where p.id = p_limit.project_id;
  if not exists (select from coordinator.job_budgets b where p_hash is null and b.limit_id = p_limit.id and b.exhausted_at = v_period)
     and not exists (select from coordinator.job_keys k where k.limit_id = p_limit.id and k.hash = p_hash and k.exhausted_at = v_period) then
    perform coordinator.event_append('limit.exhausted', v_project, p_limit.name, p_by, p_now,
      jsonb_build_object('spent', v_spent, 'budget', p_limit.budget, 'until', v_until, 'key', v_key));
  end if;
  if p_limit.on_exhausted = 'cancel' then
    v_running := array(
      select r.id from coordinator.job_charges c join coordinator.jobs_running r on r.id = c.job_id
      where c.limit_id = p_limit.id and c.period_at = v_period and (p_hash is null or c.hash = p_hash) and r.cancel_at is null);
    -- Skip attempts that other transactions have locked: these may wait for this budget.
    with asked as (
      update coordinator.jobs_running r set cancel_at = p_now + interval '30 seconds', cancelled_by = p_by, cancel_reason = v_reason
      where r.ctid = any (array(select o.ctid from coordinator.jobs_running o where o.id = any (v_running) and o.cancel_at is null
                                order by o.id for no key update skip locked))
      returning r.id)
    select coalesce(array_agg(a.id), '{}') into v_ids from asked a;
    perform coordinator.job_tell('job.cancel_requested', p_limit.project_id, v_project, t.queue, p_by, p_now, t.ids, jsonb_build_object('reason', v_reason))
    from (select j.queue, array_agg(j.id order by j.id) as ids from coordinator.jobs_open j where j.id = any (v_ids) group by 1 order by 1) t;
  end if;
  update coordinator.job_budgets b set exhausted_at = v_period where p_hash is null and b.limit_id = p_limit.id and b.exhausted_at is distinct from v_period;
  update coordinator.job_keys k set exhausted_at = v_period where k.limit_id = p_limit.id and k.hash = p_hash and k.exhausted_at is distinct from v_period;
  if cardinality(v_running) > cardinality(v_ids) then
    perform coordinator.limit_lack(p_limit.id, p_now + interval '1 second'); -- limit_refill asks the others
  end if;
  return true;
end
$$;
comment on function coordinator.limit_exhaust(coordinator.job_limits, text, timestamptz, bigint) is
  'Return whether spending has reached a budget, or that of a key. The caller has locked its row in job_budgets or job_keys. If so, emit the event once per period and, with on_exhausted cancel, ask the workers of the charged jobs to stop. Internal.';

create or replace function coordinator.job_spend(
  p_project text, p_job uuid, p_agent uuid, p_fence bigint, p_budget text, p_amount bigint)
returns setof coordinator.job_charge
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_attempt coordinator.jobs_running := coordinator.job_attempt(p_project, p_job, p_agent, p_fence);
  v_limit   coordinator.job_limits;
  v_charge  coordinator.job_charges;
  v_key     text;
  v_hash    bigint; -- per key
begin
  if p_amount is null or p_amount not between 0 and 1000000000000000 then
    raise exception using errcode = 'ZC104', message = format('an amount of %s is out of range', coalesce(p_amount::text, 'null')),
      hint = 'Give the amount spent, a whole number from 0 to 1000000000000000.';
  end if;
  select l.* into v_limit from coordinator.job_limits l where l.project_id = v_project and l.name = p_budget;
  if not found then
    perform coordinator.limit_missing(p_project, p_budget);
  elsif v_limit.kind <> 'budget' then
    raise exception using errcode = 'ZC105', message = format('limit "%s" is not a budget: its kind is %s', p_budget, v_limit.kind),
      hint = 'Only a budget can be spent. See "coordinator limit list".';
  elsif not exists (select from coordinator.job_classes c where c.id = v_attempt.class_id and v_limit.id = any (c.limit_ids))
        and not exists (select from coordinator.jobs_open j where j.id = p_job and coalesce(j.root_id, j.id) = v_limit.tree) then
    raise exception using errcode = 'ZC105', message = format('budget "%s" does not apply to job %s', p_budget, p_job),
      hint = case when v_limit.tree is null then 'Name it among the limits of such jobs, or set it for their queue or type.'
                  else format('It applies to the tree of job %s: enqueue such jobs below that job.', v_limit.tree) end;
  end if;
  if v_limit.per_key then
    select j.key, coordinator.limit_hash(v_project, j.key) into v_key, v_hash from coordinator.jobs_open j where j.id = p_job;
    if v_hash is null then
      raise exception using errcode = 'ZC105', message = format('budget "%s" does not apply to job %s, which has no key', p_budget, p_job),
        hint = 'Each key has its own budget: enqueue such jobs with a key.';
    end if;
    insert into coordinator.job_keys (limit_id, hash, key) values (v_limit.id, v_hash, v_key) on conflict on constraint job_keys_pkey do nothing;
    perform from coordinator.job_keys k where k.limit_id = v_limit.id and k.hash = v_hash for no key update;
    update coordinator.job_keys k set key = v_key where k.limit_id = v_limit.id and k.hash = v_hash and k.key is null;
  end if;
  perform from coordinator.job_budgets b where b.limit_id = v_limit.id for no key update; -- after the attempt
  update coordinator.job_charges c set spent = least(coalesce(c.spent, 0)::numeric + p_amount, 9000000000000000000)
  where c.job_id = p_job and c.limit_id = v_limit.id returning c.* into v_charge;
  if not found then -- the budget began to apply after the claim
    insert into coordinator.job_charges as c (limit_id, period_at, job_id, spent, hash)
    values (v_limit.id, coordinator.limit_period(v_limit.period, v_now), p_job, p_amount, v_hash) returning c.* into v_charge;
    update coordinator.jobs_running r set charged = true, key_hash = coalesce(v_hash, r.key_hash) where r.id = p_job;
  end if;
  perform coordinator.limit_exhaust(v_limit, coordinator.job_worker(p_agent), v_now, v_hash);
  return query
    select p_job, v_limit.name, v_charge.spent, v_charge.reserved,
           greatest(0, v_limit.budget - case when v_hash is null then (coordinator.limit_charged(v_limit.id, v_charge.period_at)).used
                                             else (coordinator.limit_charged_key(v_limit.id, v_charge.period_at, v_hash)).used end), r.cancel_at
    from coordinator.jobs_running r where r.id = p_job;
end
$$;
comment on function coordinator.job_spend(text, uuid, uuid, bigint, text, bigint) is
  'Report that a job spent p_amount (0 to 10^15, in the units of the budget), even beyond what its claim reserved, and beyond the budget. At its end, the attempt is charged the sum of these reports or, without reports, the reserved amount. Return the sum, and what is free for other jobs; cancel_at: a cancellation was requested, so stop. ZC320: the fence is stale. ZC211: there is no such limit.';
