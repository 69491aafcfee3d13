-- How claims and the ends of attempts use limits (see limit.sql). A claim locks permits with skip locked, and deletes only those of the
-- jobs that it picked, so claims never wait for each other's permits. It locks the buckets of rates after permits, in the order of their
-- ids, and before jobs: claims that need the same rate take turns.
--
-- Wake-ups. A claim that leaves jobs behind because it lacks a limit inserts a row into job_limit_waits. The transaction that frees some of the limit
-- emits limit.freed and deletes the row. If a claim and an end run at the same time, neither sees the other. The loop limit_refill then
-- wakes workers, because it sees what both have committed: a free permit or, with slots per key, a lane of a class whose line was empty.

create or replace function coordinator.limit_lack(p_limit_id bigint, p_due_at timestamptz, p_class bigint default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_wait coordinator.job_limit_waits;
begin
  select w.* into v_wait from coordinator.job_limit_waits w where w.limit_id = p_limit_id;
  if v_wait.limit_id is null then
    if pg_try_advisory_xact_lock(hashtextextended('coordinator.job_limit_wait:' || p_limit_id, 0)) then -- else another claim inserts it
      insert into coordinator.job_limit_waits (limit_id, due_at, classes) values (p_limit_id, p_due_at, array_remove(array[p_class], null))
      on conflict on constraint job_limit_waits_pkey do nothing;
    end if;
  elsif p_due_at < coalesce(v_wait.due_at, 'infinity') or p_class <> all (v_wait.classes) then
    perform from coordinator.job_limit_waits w where w.limit_id = p_limit_id for update skip locked;
    if found then
      update coordinator.job_limit_waits w
      set due_at = least(w.due_at, p_due_at), classes = case when p_class <> all (w.classes) then w.classes || p_class else w.classes end
      where w.limit_id = p_limit_id;
    end if;
  end if;
end
$$;
comment on function coordinator.limit_lack(bigint, timestamptz, bigint) is
  'Record that a claim lacked a limit. Some of it will be available at p_due_at; null: when a permit is returned or, with p_class, when a lane of that class is in the line again. No event. Internal.';

create or replace function coordinator.limit_wake(p_limits bigint[], p_by text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  with gone as (
    delete from coordinator.job_limit_waits w
    where w.ctid = any (array(select o.ctid from coordinator.job_limit_waits o where o.limit_id = any (p_limits) for update skip locked))
    returning w.limit_id)
  insert into coordinator.events (type, project, key, actor, at, data)
  select 'limit.freed', p.name, l.name, p_by, p_now, '{}'
  from gone g join coordinator.job_limits l on l.id = g.limit_id join coordinator.projects p on p.id = l.project_id order by l.id;
end
$$;
comment on function coordinator.limit_wake(bigint[], text, timestamptz) is
  'Wake workers that lacked one of these limits. Internal.';

create or replace function coordinator.limit_due(p_now timestamptz, p_limit integer) returns bigint[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return array(
    (select w.limit_id from coordinator.job_limit_waits w
     where w.due_at <= p_now
        or w.due_at is null and exists (select from coordinator.job_slots s where s.limit_id = w.limit_id)
        or exists (select from coordinator.job_permits p where p.class_id = any (w.classes))
        or exists (select from coordinator.job_budgets b join coordinator.job_limits l on l.id = b.limit_id
                   where b.limit_id = w.limit_id
                     and b.lacking <= l.budget - (coordinator.limit_charged(l.id, coordinator.limit_period(l.period, p_now))).used)
     order by w.limit_id limit p_limit)
    union all
    (select l.id from coordinator.job_limits l
     where l.tree is not null and (l.held_until > p_now) is not true
       and not exists (select from coordinator.job_limit_waits w where w.limit_id = l.id) -- woken a moment ago
       and case when (select true from coordinator.job_tree_waits t where t.limit_id = l.id limit 1) then coordinator.limit_tree_free(l, p_now) > 0 end
     order by l.id limit p_limit)
    union all
    (select l.id from coordinator.job_limits l
     where l.per_key and l.kind <> 'slots' and exists (select from coordinator.job_keys k where k.limit_id = l.id and k.due_at <= p_now)
     order by l.id limit p_limit)
    limit p_limit);
end
$$;
comment on function coordinator.limit_due(timestamptz, integer) is
  'Return up to p_limit limits that claims or jobs of a tree lacked and that have room again. Internal.';

create or replace function coordinator.limit_refill(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_limits bigint[];
  v_keys   integer;
  v_woken  integer;
begin
  perform coordinator.check_page(p_limit);
  v_limits := coordinator.limit_due(v_now, p_limit);
  perform from coordinator.job_budgets b where b.limit_id = any (v_limits) order by b.limit_id for no key update;
  perform coordinator.limit_exhaust(l, 'coordinator', v_now) from coordinator.job_limits l where l.id = any (v_limits) and l.kind = 'budget' and not l.per_key;
  perform coordinator.limit_exhaust(l, 'coordinator', v_now, k.hash)
  from coordinator.job_limits l join coordinator.job_keys k on k.limit_id = l.id and k.exhausted_at = coordinator.limit_period(l.period, v_now)
  where l.id = any (v_limits) and l.per_key and l.on_exhausted = 'cancel';
  v_keys := coordinator.limit_wake_keys(array(select l.id from coordinator.job_limits l where l.id = any (v_limits) and l.per_key and l.kind <> 'slots'), v_now);
  perform coordinator.limit_wake(v_limits, 'coordinator', v_now);
  v_woken := coordinator.limit_wake_trees(v_limits, null, 'coordinator', v_now);
  perform coordinator.limit_lack(l.id, v_now + interval '1 second') -- the woken jobs come first
  from coordinator.job_limits l
  where l.id = any (v_limits) and l.tree is not null and (select true from coordinator.job_tree_waits t where t.limit_id = l.id limit 1);
  return v_keys + (select count(*) from unnest(v_limits) d
                   where not exists (select from coordinator.job_limits l where l.id = d and (l.tree is not null or l.per_key and l.kind <> 'slots')))
         + v_woken;
end
$$;
comment on function coordinator.limit_refill(integer) is
  'Wake workers that lacked a limit that has room again, and jobs that wait for the limit of their tree, for up to p_limit limits. Return the number of these limits and jobs. Repeat until 0.';

create or replace function coordinator.limit_retire(p_limit_id bigint) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_surplus integer;
  v_retired integer;
begin
  select l.surplus into v_surplus from coordinator.job_limits l where l.id = p_limit_id for no key update skip locked;
  if not found then -- another claim retires them
    return false;
  end if;
  delete from coordinator.job_slots s
  where s.ctid = any (array(select o.ctid from coordinator.job_slots o where o.limit_id = p_limit_id order by o.turn limit v_surplus for update skip locked));
  get diagnostics v_retired = row_count;
  update coordinator.job_limits l set surplus = l.surplus - v_retired where l.id = p_limit_id and v_retired > 0;
  return v_retired = v_surplus;
end
$$;
comment on function coordinator.limit_retire(bigint) is
  'Retire free permits of a lowered limit; return whether none is left to retire. Claims take turns. No event. Internal.';

create or replace function coordinator.limit_pick(p_classes bigint[], p_limit integer, p_floors jsonb, p_now timestamptz, p_picked uuid[]) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_policy record;
  v_limit  coordinator.job_limits;
  v_want   integer := p_limit;
  v_taken  record;
  v_pools  bigint[] := '{}';
  v_rows   tid[] := '{}'; -- permits of the pools, one pool after the other
  v_ends   integer[] := '{}';
  v_turns  jsonb := '{}';
  v_gauged bigint[] := '{}'; -- rates and budgets
  v_rooms  bigint[] := '{}';
  v_room   bigint;
  v_fit    record;
  v_ids    uuid[];
  v_count  integer;
  v_short  boolean := false; -- keys gave fewer jobs than the other limits allow
  v_began  timestamptz := clock_timestamp();
  v_read   bigint := pg_stat_get_xact_tuples_returned('coordinator.job_slots_pkey'::regclass);
begin
  select q.fair or c.keyed or c.arranging as laned, not (q.fair or c.keyed) and c.arranging as leaving, c.keyed, c.limit_ids into v_policy
  from coordinator.job_classes c join coordinator.queues q on q.project_id = c.project_id and q.name = c.queue where c.id = p_classes[1];
  if v_policy.limit_ids <> '{}' and p_floors = '{}' then -- permits that a claim does not use stay locked until it ends
    select count(*) into v_want
    from unnest(p_classes) c (id) cross join lateral (select from coordinator.jobs_ready r where r.class_id = c.id limit p_limit) r;
    v_want := greatest(least(v_want, p_limit), v_policy.laned::integer); -- 1 for lanes without jobs, which are deleted
  end if;
  if v_policy.keyed and not exists (select from coordinator.job_permits p where p.class_id = p_classes[1]) then
    v_want := 0; -- all keys are full
    v_short := true;
  end if;
  if cardinality(v_policy.limit_ids) > 1 then -- lock no limit if another one is full
    for v_limit in
      select l.* from coordinator.job_limits l
      where l.id = any (v_policy.limit_ids) and l.kind = 'slots' and not l.per_key
        and not exists (select from coordinator.job_slots s where s.limit_id = l.id and s.turn > coalesce((p_floors ->> ('slots ' || l.id))::bigint, 0))
    loop
      v_want := 0;
      perform coordinator.limit_lack(v_limit.id, null);
    end loop;
  end if;
  for v_limit in
    select l.* from coordinator.job_limits l where l.id = any (v_policy.limit_ids)
    order by l.held_until > p_now desc nulls last, array_position(array['slots', 'rate', 'budget'], l.kind), l.id
  loop
    exit when v_want = 0;
    if v_limit.held_until > p_now then
      perform coordinator.limit_lack(v_limit.id, v_limit.held_until);
      v_want := 0;
    elsif v_limit.kind = 'slots' and not v_limit.per_key then
      v_count := v_want;
      if v_limit.surplus > 0 and not coordinator.limit_retire(v_limit.id) then
        v_want := 0;
      else
        with free as materialized (
          select s.ctid as place, s.turn from coordinator.job_slots s
          where s.limit_id = v_limit.id and s.turn > coalesce((p_floors ->> ('slots ' || v_limit.id))::bigint, 0)
          order by s.turn limit v_want for update skip locked)
        select coalesce(array_agg(f.place order by f.turn), '{}') as places, max(f.turn) as last into v_taken from free f;
        v_want := cardinality(v_taken.places);
        v_pools := v_pools || v_limit.id;
        v_rows := v_rows || v_taken.places;
        v_ends := v_ends || cardinality(v_rows);
        v_turns := v_turns || case when v_taken.last is null then '{}' else jsonb_build_object('slots ' || v_limit.id, v_taken.last) end;
      end if;
      if v_want < v_count then
        perform coordinator.limit_lack(v_limit.id, null);
      end if;
    elsif v_limit.kind in ('rate', 'budget') and not v_limit.per_key then
      v_room := coordinator.limit_room(v_limit, p_now);
      v_gauged := v_gauged || v_limit.id;
      v_rooms := v_rooms || v_room;
      if v_room <= 0 then
        v_want := 0;
        perform coordinator.limit_lack_gauges(array[v_limit.id], '{1}', p_now);
      end if;
    end if;
  end loop;
  -- Where little is left, check without locks first, so that nothing is taken for no job. Jobs that cost much are checked below.
  if v_want > 0 and v_gauged <> '{}' and not v_policy.laned and (select min(r) from unnest(v_rooms) r) < 10 * v_want then
    v_ids := array(
      select b.id from unnest(p_classes) c (id) cross join lateral (
        select r.rank, r.id from coordinator.jobs_ready r where r.class_id = c.id and r.lane_id = 0
          and (r.rank, r.id) > (coalesce((p_floors #>> array[c.id::text, '0'])::bigint, -9223372036854775808), (p_floors #>> array[c.id::text, '1'])::uuid)
        order by r.rank, r.id limit v_want) b order by b.rank, b.id limit v_want);
    v_fit := coordinator.limit_fit(v_ids, v_gauged, v_rooms);
    if v_fit.jobs < cardinality(v_ids) then
      v_want := v_fit.jobs;
      perform coordinator.limit_lack_gauges(v_fit.short, v_fit.need, p_now);
    end if;
  end if;
  v_ids := '{}';
  if v_want > 0 then
    if not v_policy.laned or v_policy.leaving then -- jobs that already have a rank come first
      v_ids := coordinator.job_pick(p_classes, v_want, p_floors);
    end if;
    if v_policy.laned and coalesce(cardinality(v_ids), 0) < v_want then
      v_ids := v_ids || coordinator.job_pick_fair(p_classes[1], v_want - coalesce(cardinality(v_ids), 0), p_floors, case when v_policy.keyed then p_picked end);
    end if;
    v_short := v_policy.keyed and coalesce(cardinality(v_ids), 0) < v_want;
  end if;
  if v_short and exists (select from coordinator.jobs_ready r where r.class_id = p_classes[1]) then -- their keys are full, or locked by other claims
    perform coordinator.limit_lack(l.id, case when exists (select from coordinator.job_permits p where p.class_id = p_classes[1]) then p_now end, p_classes[1])
    from coordinator.job_limits l where l.id = any (v_policy.limit_ids) and l.per_key and l.kind = 'slots';
  end if;
  if v_gauged <> '{}' and v_ids <> '{}' then
    if not coordinator.limit_fits(v_ids, v_gauged, v_rooms) then
      v_ids := array(select j.id from coordinator.jobs_open j where j.id = any (v_ids) order by j.priority desc, j.scheduled_at, j.id);
      v_fit := coordinator.limit_fit(v_ids, v_gauged, v_rooms);
      perform coordinator.limit_lack_gauges(v_fit.short, v_fit.need, p_now);
      perform coordinator.job_make_ready(v_ids[v_fit.jobs + 1:], 'coordinator', p_now, p_tell => false, p_wait => false);
      v_ids := v_ids[:v_fit.jobs];
    end if;
    perform coordinator.limit_take(v_ids, v_gauged, p_now);
  end if;
  v_count := coalesce(cardinality(v_ids), 0);
  for v_pool in 1..cardinality(v_pools) loop
    delete from coordinator.job_slots s where s.ctid = any (v_rows[coalesce(v_ends[v_pool - 1], 0) + 1:coalesce(v_ends[v_pool - 1], 0) + v_count]);
    if v_count < v_ends[v_pool] - coalesce(v_ends[v_pool - 1], 0) then -- another claim may have lacked what this one did not use
      perform coordinator.limit_wake(v_pools[v_pool:v_pool], 'coordinator', p_now);
    end if;
  end loop;
  perform coordinator.job_floor_raise(v_turns, pg_stat_get_xact_tuples_returned('coordinator.job_slots_pkey'::regclass) - v_read - 3 * p_limit, v_began);
  return coalesce(v_ids, '{}');
end
$$;
comment on function coordinator.limit_pick(bigint[], integer, jsonb, timestamptz, uuid[]) is
  'Take up to p_limit jobs out of jobs_ready, as their limits allow, and return their ids. The classes have the same limits, or there is one fair class. Internal.';

create or replace function coordinator.limit_slots(p_classes bigint[]) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return (
    select jsonb_object_agg(s.id, s.limits)
    from (select c.id, array_agg(l.id order by l.id)::text as limits
          from coordinator.job_classes c join coordinator.job_limits l on l.id = any (c.limit_ids) and l.kind = 'slots'
          where c.id = any (p_classes) group by c.id) s);
end
$$;
comment on function coordinator.limit_slots(bigint[]) is
  'Return, by class, the limits whose slots its jobs take, as texts of arrays; null: none. Internal.';

create or replace function coordinator.limit_give_back(p_limits bigint[], p_by text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  insert into coordinator.job_slots (limit_id, turn) select s, nextval('coordinator.job_turns') from unnest(p_limits) s;
  perform coordinator.limit_wake(array(select distinct s from unnest(p_limits) s), p_by, p_now);
  if exists (select from coordinator.job_limits l where l.id = any (p_limits) and l.tree is not null) then
    perform coordinator.limit_wake_trees(array_agg(s.id), array_agg(s.jobs), p_by, p_now) from (select s as id, count(*) as jobs from unnest(p_limits) s group by 1) s;
  end if;
end
$$;
comment on function coordinator.limit_give_back(bigint[], text, timestamptz) is
  'Return one slot of each of these limits, which may occur several times, and wake workers that lacked it. Internal.';

create or replace function coordinator.limit_leave(
  p_charged uuid[], p_slots bigint[], p_hashes bigint[], p_outcome text, p_by text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_of record;
begin
  if p_charged is not null then
    perform coordinator.limit_settle(p_charged, p_outcome, p_by, p_now);
  end if;
  if p_slots is null then
    return;
  end if;
  select array_agg(u.limit_id) filter (where not l.per_key) as slots,
         array_agg(u.limit_id) filter (where l.per_key and u.hash is not null) as keyed,
         array_agg(u.hash) filter (where l.per_key and u.hash is not null) as hashes into v_of
  from (select unnest(p_slots) as limit_id, unnest(p_hashes) as hash) u
  join (select o.id, o.per_key from coordinator.job_limits o where o.id = any (p_slots) offset 0) l on l.id = u.limit_id; -- without a lookup for each job
  if v_of.keyed is not null then
    perform coordinator.limit_unpark(v_of.keyed, v_of.hashes);
    perform coordinator.limit_wake(array(select distinct k from unnest(v_of.keyed) k), p_by, p_now);
  end if;
  if v_of.slots is not null then
    perform coordinator.limit_give_back(v_of.slots, p_by, p_now);
  end if;
end
$$;
comment on function coordinator.limit_leave(uuid[], bigint[], bigint[], text, text, timestamptz) is
  'Return the slots of attempts that end with this outcome, and settle what they cost in budgets. p_charged: the jobs that budgets were charged for; p_slots: a limit for each slot; p_hashes: the key of the attempt that had it, or null. Internal.';

create or replace function coordinator.limit_return(p_ids uuid[], p_by text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_slots bigint[];
  v_keyed bigint[];
begin
  select array_agg(l.id) filter (where not l.per_key and l.kind = 'slots'), array_agg(l.id) filter (where l.per_key) into v_slots, v_keyed
  from (select o.* from coordinator.jobs_open o where o.id = any (p_ids) offset 0) j join coordinator.job_classes c on c.id = j.class_id
  join coordinator.job_limits l on l.id = any (c.limit_ids);
  delete from coordinator.job_charges c where c.job_id = any (p_ids);
  update coordinator.job_buckets b set level = b.level + t.tokens
  from (select l.id, sum(coordinator.limit_cost(l, j.limits)) as tokens
        from (select o.* from coordinator.jobs_open o where o.id = any (p_ids) offset 0) j join coordinator.job_classes c on c.id = j.class_id
        join coordinator.job_limits l on l.id = any (c.limit_ids) and l.kind = 'rate' and not l.per_key group by l.id) t
  where b.limit_id = t.id;
  update coordinator.job_keys k set level = k.level + t.tokens
  from (select l.id, coordinator.limit_hash(j.project_id, j.key) as hash, sum(coordinator.limit_cost(l, j.limits)) as tokens
        from (select o.* from coordinator.jobs_open o where o.id = any (p_ids) offset 0) j join coordinator.job_classes c on c.id = j.class_id
        join coordinator.job_limits l on l.id = any (c.limit_ids) and l.kind = 'rate' and l.per_key
        where v_keyed is not null and j.key is not null group by 1, 2) t
  where k.limit_id = t.id and k.hash = t.hash;
  if v_keyed is not null then
    insert into coordinator.job_permits (class_id, turn, lane_id)
    select l.class_id, nextval('coordinator.job_turns'), l.id
    from coordinator.job_lanes l join coordinator.job_classes c on c.id = l.class_id and c.limit_ids && v_keyed
    where l.hash in (select coordinator.limit_hash(j.project_id, j.key) from coordinator.jobs_open j where j.id = any (p_ids));
  end if;
  if v_slots is not null then
    perform coordinator.limit_give_back(v_slots, p_by, p_now);
  end if;
end
$$;
comment on function coordinator.limit_return(uuid[], text, timestamptz) is
  'Undo limit_pick for jobs that do not start now: return their slots and what it reserved for them. Internal.';
