-- Setting and deleting limits (see limit.sql). Meanwhile, no claim runs and no class is created. Attempts may end: each running attempt
-- counts until its end has committed.

create or replace function coordinator.limit_check(p_limit coordinator.job_limits) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_name('the name of the limit', p_limit.name, 100);
  if p_limit.queue is not null then
    perform coordinator.check_name('the name of the queue', p_limit.queue, 100);
  end if;
  if p_limit.type is not null then
    perform coordinator.check_name('the type', p_limit.type);
  end if;
  if num_nonnulls(p_limit.slots, p_limit.rate, p_limit.budget) <> 1 then
    raise exception using errcode = case num_nonnulls(p_limit.slots, p_limit.rate, p_limit.budget) when 0 then 'ZC101' else 'ZC105' end,
      message = case num_nonnulls(p_limit.slots, p_limit.rate, p_limit.budget) when 0 then 'slots, a rate or a budget is missing' else 'more than one of slots, rate and budget is given' end,
      hint = 'Give exactly one of them.';
  elsif num_nonnulls(p_limit.per, p_limit.burst) > 0 and p_limit.rate is null then
    raise exception using errcode = 'ZC105', message = 'an interval or a burst is given without a rate', hint = 'Give the rate, too.';
  elsif num_nonnulls(p_limit.period, p_limit.reserve, p_limit.on_exhausted) > 0 and p_limit.budget is null then
    raise exception using errcode = 'ZC105', message = 'a period, a reserve or on_exhausted is given without a budget',
      hint = 'Give the budget, too.';
  elsif p_limit.tree is not null and (p_limit.per_key or num_nonnulls(p_limit.queue, p_limit.type) > 0) then
    raise exception using errcode = 'ZC105', message = 'a tree is given together with a queue, a type or per_key',
      hint = 'A limit of a tree applies to all of its jobs: give the tree alone.';
  elsif p_limit.slots not between 1 and 100000 then
    raise exception using errcode = 'ZC104', message = format('%s slots are out of range', p_limit.slots),
      hint = 'Give 1 to 100000. To let nothing start, pause the queue or hold the limit.';
  elsif p_limit.rate <= 0 or p_limit.rate not between 0 and 1000000000 then
    raise exception using errcode = 'ZC104', message = format('a rate of %s is out of range', p_limit.rate), hint = 'Give more than 0, up to 1000000000.';
  elsif extract(epoch from p_limit.per) not between 1 and 31622400 then
    raise exception using errcode = 'ZC104', message = format('an interval of %s is out of range', coordinator.duration_text(p_limit.per)),
      hint = 'Give 1s to 366d.';
  elsif p_limit.burst not between 1 and 1000000000 then
    raise exception using errcode = 'ZC104', message = format('a burst of %s is out of range', p_limit.burst), hint = 'Give 1 to 1000000000.';
  elsif p_limit.budget not between 1 and 1000000000000000 then
    raise exception using errcode = 'ZC104', message = format('a budget of %s is out of range', p_limit.budget), hint = 'Give 1 to 1000000000000000.';
  elsif p_limit.period not in ('hour', 'day', 'ever') then
    raise exception using errcode = 'ZC105', message = format('invalid period "%s"', left(p_limit.period, 200)), hint = 'Use hour, day or ever.';
  elsif p_limit.reserve not between 0 and p_limit.budget then
    raise exception using errcode = 'ZC104', message = format('a reserve of %s is out of range', p_limit.reserve),
      hint = 'Give at most the budget; else no job could start.';
  elsif p_limit.on_exhausted not in ('stop', 'cancel') then
    raise exception using errcode = 'ZC105', message = format('invalid on_exhausted "%s"', left(p_limit.on_exhausted, 200)),
      hint = 'Use stop (no job starts) or cancel (running jobs, too).';
  end if;
end
$$;
comment on function coordinator.limit_check(coordinator.job_limits) is
  'Reject an invalid limit. Internal.';

create or replace function coordinator.limit_enter(p_project_id bigint, p_per_key boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_queues text[];
begin
  perform coordinator.check_isolation('limits change');
  perform coordinator.advisory_enter(coordinator.limit_key(p_project_id));
  if p_per_key then -- queued jobs will be placed again: in the order of locks, attempts come before queues
    perform from coordinator.jobs_running r join coordinator.job_classes c on c.id = r.class_id
    where c.project_id = p_project_id order by r.id for no key update of r;
    v_queues := array(select q.name from coordinator.queues q where q.project_id = p_project_id order by q.name);
    perform coordinator.advisory_enter(coordinator.queue_key(p_project_id, n)) from unnest(v_queues) n;
  end if;
  perform coordinator.advisory_enter(coordinator.limit_class_key(p_project_id));
  if p_per_key and exists (select from coordinator.queues q where q.project_id = p_project_id and q.name <> all (v_queues)) then
    raise exception using errcode = 'lock_not_available', message = 'a queue was created at the same time', hint = 'Try again.';
  end if;
end
$$;
comment on function coordinator.limit_enter(bigint, boolean) is
  'Block claims that use limits of a project, and the creation of classes, until the end of the transaction; with p_per_key, also enqueues. Internal.';

create or replace function coordinator.limit_rebind(p_project_id bigint) returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_classes bigint[];
begin
  with bound as (
    update coordinator.job_classes c
    set limit_ids = n.limit_ids, keyed = exists (select from coordinator.job_limits l where l.id = any (n.limit_ids) and l.per_key)
    from (select k.id, coordinator.limit_ids(k.project_id, k.queue, k.type, k.limits) as limit_ids
          from coordinator.job_classes k where k.project_id = p_project_id) n
    where c.id = n.id and c.limit_ids <> n.limit_ids
    returning c.id)
  select coalesce(array_agg(b.id), '{}') into v_classes from bound b;
  return v_classes;
end
$$;
comment on function coordinator.limit_rebind(bigint) is
  'Store in the classes of a project which limits they have, and return the classes whose limits changed. No event. Internal.';

-- If another transaction is ending attempts of the classes, this waits for it.
create or replace function coordinator.limit_bind(p_limit coordinator.job_limits) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_classes bigint[] := coordinator.limit_rebind(p_limit.project_id);
  v_running integer;
begin
  if p_limit.tree is not null and p_limit.kind = 'slots' then
    update coordinator.jobs_running r set slots = coalesce(r.slots, '{}') || p_limit.id
    where r.id = any (array(select j.id from coordinator.jobs_open j where j.root_id = p_limit.tree) || p_limit.tree);
    get diagnostics v_running = row_count;
    perform coordinator.limit_resize(p_limit.id, 0, p_limit.slots - v_running);
  elsif p_limit.kind = 'slots' then
    update coordinator.jobs_running r
    set slots = coalesce(r.slots, '{}') || p_limit.id,
        key_hash = case when p_limit.per_key then
          (select coordinator.limit_hash(j.project_id, j.key) from coordinator.jobs_open j where j.id = r.id) else r.key_hash end
    where r.class_id = any (v_classes);
    get diagnostics v_running = row_count;
    if p_limit.per_key then
      perform coordinator.queue_arrange(v_classes);
    else
      perform coordinator.limit_resize(p_limit.id, 0, p_limit.slots - v_running);
    end if;
  elsif p_limit.per_key then
    perform coordinator.queue_arrange(v_classes);
  elsif p_limit.kind = 'rate' then
    insert into coordinator.job_buckets (limit_id, level, level_at) values (p_limit.id, p_limit.burst, coordinator.now_utc());
  elsif p_limit.kind = 'budget' then
    insert into coordinator.job_budgets (limit_id) values (p_limit.id);
  end if;
end
$$;
comment on function coordinator.limit_bind(coordinator.job_limits) is
  'Apply a new limit to the classes of its jobs or to its tree, and to running jobs. No event. Internal.';

create or replace function coordinator.limit_resize(p_limit_id bigint, p_surplus integer, p_more integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_more    integer := p_more - p_surplus; -- negative: permits to retire
  v_retired integer := 0;
begin
  if v_more > 0 then
    insert into coordinator.job_slots (limit_id, turn) select p_limit_id, nextval('coordinator.job_turns') from generate_series(1, v_more);
  elsif v_more < 0 then
    delete from coordinator.job_slots s
    where s.ctid = any (array(select o.ctid from coordinator.job_slots o where o.limit_id = p_limit_id order by o.turn limit -v_more for update));
    get diagnostics v_retired = row_count;
  end if;
  update coordinator.job_limits l set surplus = greatest(0, -v_more - v_retired) where l.id = p_limit_id and l.surplus <> greatest(0, -v_more - v_retired);
end
$$;
comment on function coordinator.limit_resize(bigint, integer, integer) is
  'Add p_more slots to a limit, or remove some if it is negative. p_surplus: permits that are still to be retired. Free permits are retired at once; the rest becomes the surplus. No event. Internal.';

create or replace function coordinator.limit_set(
  p_project text, p_name text, p_slots integer default null, p_rate double precision default null, p_per interval default null,
  p_burst integer default null, p_budget bigint default null, p_period text default null, p_reserve bigint default null,
  p_on_exhausted text default null, p_queue text default null, p_type text default null, p_per_key boolean default null,
  p_tree uuid default null, p_actor text default null)
returns setof coordinator.job_limits_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_now     timestamptz;
  v_before  coordinator.job_limits;
  v_after   coordinator.job_limits;
begin
  perform coordinator.project_hold(v_project);
  perform coordinator.limit_enter(v_project, coalesce(p_per_key, false));
  v_now := coordinator.now_utc();
  select * into v_before from coordinator.job_limits l where l.project_id = v_project and l.name = p_name for no key update;
  v_after := v_before;
  v_after.name := p_name;
  v_after.project_id := v_project;
  v_after.slots := coalesce(p_slots, v_before.slots);
  v_after.rate := coalesce(p_rate, v_before.rate);
  v_after.budget := coalesce(p_budget, v_before.budget);
  v_after.kind := coalesce(v_before.kind, case when p_slots is not null then 'slots' when p_rate is not null then 'rate' else 'budget' end);
  v_after.per := coalesce(p_per, v_before.per);
  v_after.burst := coalesce(p_burst, v_before.burst);
  v_after.period := coalesce(p_period, v_before.period);
  v_after.reserve := coalesce(p_reserve, v_before.reserve);
  v_after.on_exhausted := coalesce(p_on_exhausted, v_before.on_exhausted);
  v_after.queue := coalesce(p_queue, v_before.queue);
  v_after.type := coalesce(p_type, v_before.type);
  v_after.per_key := coalesce(p_per_key, v_before.per_key, false);
  v_after.tree := coalesce(p_tree, v_before.tree);
  v_after.updated_at := v_now;
  v_after.actor := v_actor;
  if v_before.id is not null
     and ((v_before.queue, v_before.type, v_before.per_key, v_before.tree) is distinct from (v_after.queue, v_after.type, v_after.per_key, v_after.tree)
          or num_nonnulls(v_after.slots, v_after.rate, v_after.budget) > 1) then
    raise exception using errcode = 'ZC325', message = format('limit "%s" has another kind or applies to other jobs', p_name),
      detail = jsonb_build_object('kind', v_before.kind, 'queue', v_before.queue, 'type', v_before.type, 'per_key', v_before.per_key, 'tree', v_before.tree)::text,
      hint = 'Delete it first, or choose another name. Only its size can be changed.';
  end if;
  perform coordinator.limit_check(v_after);
  if v_after.kind = 'rate' then
    v_after.per := coalesce(v_after.per, interval '1 second');
    v_after.burst := coalesce(v_after.burst, greatest(1, ceil(v_after.rate))::integer);
  elsif v_after.kind = 'budget' then
    v_after.period := coalesce(v_after.period, 'ever');
    v_after.reserve := coalesce(v_after.reserve, 0);
    v_after.on_exhausted := coalesce(v_after.on_exhausted, 'stop');
  end if;
  if v_before.id is null then
    if p_tree is not null then
      perform coordinator.limit_check_tree(p_project, v_after);
    end if;
    insert into coordinator.job_limits (project_id, name, kind, queue, type, per_key, tree, slots, rate, per, burst, budget, period,
                                        reserve, on_exhausted, actor, created_at, updated_at)
    values (v_project, p_name, v_after.kind, v_after.queue, v_after.type, v_after.per_key, v_after.tree, v_after.slots, v_after.rate, v_after.per,
            v_after.burst, v_after.budget, v_after.period, v_after.reserve, v_after.on_exhausted, v_actor, v_now, v_now)
    returning * into v_after;
    if (select count(*) from coordinator.job_limits l where l.project_id = v_project) > 1000 then
      raise exception using errcode = 'ZC102', message = 'the project would have more than 1000 limits', hint = 'Delete some, or use limits per key.';
    end if;
    perform coordinator.limit_bind(v_after);
  else
    if v_after.kind = 'rate' then -- what came in until now came at the old rate
      update coordinator.job_buckets b
      set level = least(v_after.burst, b.level + greatest(0, extract(epoch from v_now - b.level_at)) * v_before.rate / extract(epoch from v_before.per)),
          level_at = greatest(v_now, b.level_at)
      where b.limit_id = v_before.id;
      update coordinator.job_keys k
      set level = least(v_after.burst, k.level + greatest(0, extract(epoch from v_now - k.level_at)) * v_before.rate / extract(epoch from v_before.per)),
          level_at = greatest(v_now, k.level_at)
      where k.limit_id = v_before.id and k.level is not null;
    end if;
    update coordinator.job_limits l
    set slots = v_after.slots, rate = v_after.rate, per = v_after.per, burst = v_after.burst, budget = v_after.budget, period = v_after.period,
        reserve = v_after.reserve, on_exhausted = v_after.on_exhausted, actor = v_actor, updated_at = v_now
    where l.id = v_before.id;
    if v_after.kind = 'budget' then
      update coordinator.job_budgets b set exhausted_at = null where b.limit_id = v_before.id;
      -- Charges of the old periods no longer count.
      delete from coordinator.job_charges c where c.limit_id = v_before.id and c.job_id is null and v_before.period <> v_after.period;
    elsif v_after.kind = 'slots' and not v_after.per_key then
      perform coordinator.limit_resize(v_before.id, v_before.surplus, v_after.slots - v_before.slots);
    end if;
    if v_after.per_key then
      perform coordinator.limit_unpark_all(v_before.id);
    end if;
    perform coordinator.limit_wake(array[v_before.id], v_actor, v_now);
    perform coordinator.limit_wake_trees(array[v_before.id], null, v_actor, v_now);
  end if;
  perform coordinator.event_append('limit.set', p_project, p_name, v_actor, v_now, jsonb_build_object(
    'kind', v_after.kind, 'queue', v_after.queue, 'type', v_after.type, 'per_key', v_after.per_key, 'tree', v_after.tree, 'slots', v_after.slots,
    'rate', v_after.rate, 'per_s', extract(epoch from v_after.per), 'burst', v_after.burst, 'budget', v_after.budget, 'period', v_after.period,
    'reserve', v_after.reserve, 'on_exhausted', v_after.on_exhausted));
  return query select * from coordinator.job_limits_live l where l.project = p_project and l.name = p_name;
end
$$;
comment on function coordinator.limit_set(text, text, integer, double precision, interval, integer, bigint, text, bigint, text, text, text, boolean, uuid, text) is
  'Create a job limit, or change its size. Null parameters keep their current values. Give one of p_slots (jobs that run at once, 1 to 100,000), p_rate (tokens per p_per, by default 1 second; unused tokens accumulate up to p_burst, by default those of one interval) and p_budget (an amount per p_period: hour, day or ever; p_reserve: what a claim reserves for a job; p_on_exhausted: stop or cancel). The limit applies to the jobs of p_queue, of p_type, or of both, and to jobs that name it. p_per_key: each key has its own slots, rate or budget. p_tree: the limit applies to the open root job with this id and all jobs below it, including later ones, and ends with the last of them; other jobs of the tree then wait. The kind and the jobs of an existing limit cannot be changed: ZC325. When slots are lowered, running jobs continue.';

create or replace function coordinator.limit_drop(p_limit coordinator.job_limits, p_by text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_classes bigint[];
begin
  perform coordinator.limit_wake(array[p_limit.id], p_by, p_now);
  delete from coordinator.job_limits l where l.id = p_limit.id;
  v_classes := coordinator.limit_rebind(p_limit.project_id);
  update coordinator.jobs_running r set slots = nullif(array_remove(r.slots, p_limit.id), '{}') where p_limit.id = any (r.slots);
  if p_limit.per_key then
    delete from coordinator.job_keys k where k.limit_id = p_limit.id;
    perform coordinator.queue_arrange(v_classes);
  end if;
  update coordinator.jobs_waiting w set due_at = p_now -- a loop wakes them
  where w.id = any (array(select t.job_id from coordinator.job_tree_waits t where t.limit_id = p_limit.id));
  delete from coordinator.job_slots s where s.limit_id = p_limit.id;
  delete from coordinator.job_buckets b where b.limit_id = p_limit.id;
  delete from coordinator.job_budgets b where b.limit_id = p_limit.id;
  delete from coordinator.job_charges c where c.limit_id = p_limit.id;
  perform coordinator.event_append('limit.deleted', p.name, p_limit.name, p_by, p_now, '{}') from coordinator.projects p where p.id = p_limit.project_id;
end
$$;
comment on function coordinator.limit_drop(coordinator.job_limits, text, timestamptz) is
  'Delete a limit, under the locks of limit_enter. Internal.';

create or replace function coordinator.limit_delete(p_project text, p_name text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_per_key boolean := exists (select from coordinator.job_limits l where l.project_id = v_project and l.name = p_name and l.per_key);
  v_limit   coordinator.job_limits;
begin
  perform coordinator.project_hold(v_project);
  perform coordinator.limit_enter(v_project, v_per_key);
  select * into v_limit from coordinator.job_limits l where l.project_id = v_project and l.name = p_name and l.per_key = v_per_key for update;
  if v_limit.id is null then
    return false;
  end if;
  perform coordinator.limit_drop(v_limit, v_actor, coordinator.now_utc());
  return true;
end
$$;
comment on function coordinator.limit_delete(text, text, text) is
  'Delete a limit; return false if there is none. Jobs that name it then run without it.';

create or replace function coordinator.limit_prune(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return cardinality(coordinator.project_each('limit_prune', p_limit, $due$
    select l.project_id, l.id::text from coordinator.job_limits l
    where l.tree is not null and l.project_id <> all ($2) and not exists (select from coordinator.jobs_open j where j.id = l.tree)
      and not exists (select from coordinator.jobs_open j where j.root_id = l.tree)
    order by l.id limit $3
  $due$));
end
$$;
comment on function coordinator.limit_prune(integer) is
  'Delete up to p_limit limits of trees that have ended; returns how many. Repeat until 0.';

create or replace function coordinator.limit_prune_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_limit coordinator.job_limits;
  v_done  text[] := '{}';
begin
  if pg_try_advisory_xact_lock(coordinator.limit_key(p_project_id)) and pg_try_advisory_xact_lock(coordinator.limit_class_key(p_project_id)) then
    for v_limit in select l.* from coordinator.job_limits l where l.id = any (p_items::bigint[]) order by l.id for update skip locked loop
      perform coordinator.limit_drop(v_limit, 'coordinator', coordinator.now_utc());
      v_done := v_done || v_limit.id::text;
    end loop;
  end if;
  return v_done;
end
$$;
comment on function coordinator.limit_prune_in(bigint, text[], integer) is
  'Do the work of limit_prune in a project: see project_each. Internal.';
