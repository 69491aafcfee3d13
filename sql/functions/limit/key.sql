-- Limits per key: each key has its own slots, rate or budget (see limit.sql; for rates and budgets, key_gauge.sql).
--
-- The running jobs of a key are counted in jobs_running. To start jobs of a key, a claim locks the key's row in job_keys, without waiting,
-- and counts in a later statement; so only one claim counts at a time. A lane whose key is full leaves the line, so it costs claims
-- nothing. The end of an attempt brings the lane back if the key was full.
--
-- No lane is forgotten. A claim that finds a key full locks the attempts that fill it (for key share) until its commit. If it cannot lock
-- one, some transaction is ending that attempt, perhaps without having seen the lane, so the lane stays in the line. A transaction that
-- ends an attempt later waits for the claim, and then finds the lane.

create or replace function coordinator.limit_hash(p_project_id bigint, p_key text) returns bigint
language sql immutable parallel safe
return hashtextextended(p_key, p_project_id);
comment on function coordinator.limit_hash(bigint, text) is
  'Return the hash of a project and a key; null without a key, which means without a limit. Internal.';

create or replace function coordinator.limit_enter_keys(p_classes bigint[], p_hashes bigint[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_limits bigint[];
  v_hashes bigint[];
  v_held   bigint;
begin
  select array_agg(k.limit_id), array_agg(k.hash) into v_limits, v_hashes
  from (select distinct l.id as limit_id, u.hash from unnest(p_classes, p_hashes) u (class_id, hash)
        join coordinator.job_classes c on c.id = u.class_id
        join coordinator.job_limits l on l.id = any (c.limit_ids) and l.per_key order by 1, 2) k;
  loop
    insert into coordinator.job_keys (limit_id, hash) select * from unnest(v_limits, v_hashes) on conflict on constraint job_keys_pkey do nothing;
    with held as (
      select from coordinator.job_keys k
      where k.ctid = any (array(select (select o.ctid from coordinator.job_keys o where o.limit_id = u.limit_id and o.hash = u.hash)
                                from unnest(v_limits, v_hashes) u (limit_id, hash))) for key share)
    select count(*) into v_held from held;
    exit when v_held >= cardinality(v_limits); -- otherwise one was pruned in between
  end loop;
end
$$;
comment on function coordinator.limit_enter_keys(bigint[], bigint[]) is
  'Insert the rows of keys that get their first lane in a class, and lock them until the end of the transaction. No event. Internal.';

create or replace function coordinator.limit_rooms(
  p_class bigint, p_lanes bigint[], p_hashes bigint[], p_counts integer[], p_picked uuid[], p_now timestamptz, out counts integer[], out rooms integer[], out busy integer[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_all    bigint[];
  v_limits bigint[]; -- those with slots
  v_slots  integer[];
  v_held   bigint[];
  v_fit    record;
  v_full   bigint[]; -- keys that will be full and have other running jobs
  v_run    bigint[]; -- how many
begin
  select array_agg(l.id), array_agg(l.id) filter (where l.kind = 'slots'), array_agg(l.slots) filter (where l.kind = 'slots') into v_all, v_limits, v_slots
  from coordinator.job_classes c join coordinator.job_limits l on l.id = any (c.limit_ids) and l.per_key where c.id = p_class;
  with held as materialized (
    select k.hash from coordinator.job_keys k
    where k.ctid = any (array(select (select o.ctid from coordinator.job_keys o where o.limit_id = l and o.hash = h) -- else it reads all keys
                              from unnest(v_all) l cross join unnest(p_hashes) h where h is not null)) for update skip locked)
  select array_agg(f.hash) into v_held from (select h.hash from held h group by 1 having count(*) = cardinality(v_all)) f;
  -- A later statement sees everything that earlier claims have started.
  with picked as materialized (
    select coordinator.limit_hash(j.project_id, j.key) as hash, l.id as limit_id, count(*) as jobs
    from (select o.* from coordinator.jobs_open o where o.id = any (p_picked) offset 0) j join coordinator.job_classes c on c.id = j.class_id
    join coordinator.job_limits l on l.id = any (c.limit_ids) and l.id = any (v_limits) group by 1, 2),
  key as materialized (
    select u.*, case when u.hash is null then 2147483647 when u.hash is distinct from h.hash then 0
                else (select coalesce(min(l.slots - coalesce((select k.jobs from picked k where k.hash = u.hash and k.limit_id = l.id), 0)
                                 - (select count(*) from coordinator.jobs_running r where r.key_hash = u.hash and l.id = any (r.slots))), 2147483647)
                      from unnest(v_limits, v_slots) l (id, slots)) end as room,
           u.hash is distinct from h.hash as busy
    from unnest(p_hashes, p_counts) with ordinality u (hash, jobs, place) left join unnest(v_held) h (hash) on h.hash = u.hash)
  select array_agg(least(k.jobs, greatest(0, k.room)) order by k.place), array_agg(greatest(0, k.room - k.jobs) order by k.place),
         coalesce(array_agg(k.place) filter (where k.busy), '{}'), array_agg(k.hash) filter (where not k.busy and k.room <= k.jobs and k.room < (select min(s) from unnest(v_slots) s))
  into counts, rooms, busy, v_full from key k;
  if cardinality(v_all) > coalesce(cardinality(v_limits), 0) then
    v_fit := coordinator.limit_key_fits(p_class, p_lanes, p_hashes, counts, p_now);
    select array_agg(least(u.jobs, u.fits) order by u.place),
           array_agg(case when u.fits <= u.jobs then 0 else least(u.room, u.fits - u.jobs) end order by u.place),
           nullif(v_full || array_agg(u.hash) filter (where u.budget and u.hash = any (v_held)), '{}')
    into counts, rooms, v_full
    from unnest(p_hashes, counts, rooms, v_fit.fits, v_fit.budgets) with ordinality u (hash, jobs, room, fits, budget, place);
  end if;

  if v_full is not null then -- attempts that nobody is ending keep their keys full; an end that begins now waits, and sees the lane
    select array_agg(n.hash), array_agg(n.jobs) into v_full, v_run
    from (select f.hash, (select count(*) from coordinator.jobs_running r where r.key_hash = f.hash and (r.slots && v_limits or r.charged)) as jobs
          from unnest(v_full) f (hash)) n where n.jobs > 0;
  end if;
  if v_full is not null then
    with held as materialized (
      select r.key_hash from coordinator.jobs_running r where r.key_hash = any (v_full) and (r.slots && v_limits or r.charged) order by r.id for key share skip locked)
    select busy || array_agg(array_position(p_hashes, f.hash)) into busy
    from unnest(v_full, v_run) f (hash, jobs) where f.jobs <> (select count(*) from held h where h.key_hash = f.hash);
  end if;
end
$$;
comment on function coordinator.limit_rooms(bigint, bigint[], bigint[], integer[], uuid[], timestamptz) is
  'Lock the keys of lanes. counts: how many of p_counts jobs each lane may start besides p_picked, which this claim has already picked; rooms: how many more. busy: the places of lanes that must stay in the line, because another transaction is starting or ending jobs of the key. Internal.';

create or replace function coordinator.limit_unpark_lanes(p_limits bigint[], p_hashes bigint[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
  insert into coordinator.job_permits (class_id, turn, lane_id)
  select n.class_id, nextval('coordinator.job_turns'), n.id
  from unnest(p_limits, p_hashes) f (limit_id, hash)
  join coordinator.job_lanes n on n.hash = f.hash
  join coordinator.job_classes c on c.id = n.class_id and f.limit_id = any (c.limit_ids)
  group by n.class_id, n.id;
end
$$;
comment on function coordinator.limit_unpark_lanes(bigint[], bigint[]) is
  'Return the lanes of keys to the line. No event. Internal.';

create or replace function coordinator.limit_unpark(p_limits bigint[], p_hashes bigint[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_limits bigint[];
  v_hashes bigint[];
begin
  -- The lanes of a key that was not full are already in the line.
  select array_agg(l.id), array_agg(e.hash) into v_limits, v_hashes
  from (select u.limit_id, u.hash, count(*) as jobs from unnest(p_limits, p_hashes) u (limit_id, hash) group by 1, 2) e
  join coordinator.job_limits l on l.id = e.limit_id
  where e.jobs >= l.slots
     or e.jobs + (select count(*) from coordinator.jobs_running r where r.key_hash = e.hash and l.id = any (r.slots)) >= l.slots;
  if v_limits is not null then
    perform coordinator.limit_unpark_lanes(v_limits, v_hashes);
  end if;
end
$$;
comment on function coordinator.limit_unpark(bigint[], bigint[]) is
  'Return lanes to the line if their keys were full before attempts ended. Each attempt had a slot of one of these limits and keys. No event. Internal.';

create or replace function coordinator.limit_unpark_all(p_limit_id bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update coordinator.job_keys k set due_at = null, parked = false, exhausted_at = null
  where k.limit_id = p_limit_id and (k.due_at is not null or k.exhausted_at is not null);
  insert into coordinator.job_permits (class_id, turn, lane_id)
  select n.class_id, nextval('coordinator.job_turns'), n.id
  from coordinator.job_classes c join coordinator.job_lanes n on n.class_id = c.id
  where p_limit_id = any (c.limit_ids) and not exists (select from coordinator.job_permits p where p.class_id = n.class_id and p.lane_id = n.id);
end
$$;
comment on function coordinator.limit_unpark_all(bigint) is
  'Return all lanes of a limit whose size has changed to the line. No event. Internal.';

create or replace function coordinator.limit_prune_keys(p_limit integer default 10000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_count integer;
  v_old   integer;
begin
  perform coordinator.check_page(p_limit);
  -- A transaction that creates a lane has locked the key's row.
  with idle as materialized (
    select k.ctid as place, k.hash from coordinator.job_keys k
    left join coordinator.job_limits m on m.id = k.limit_id
    where not exists (select from coordinator.job_lanes l where l.hash = k.hash)
      and (m.kind = 'rate' and k.level is not null and coordinator.limit_level(m, k.level, k.level_at, v_now) < m.burst) is not true
      and (k.exhausted_at >= coordinator.limit_period(m.period, v_now)) is not true
    limit p_limit for update of k skip locked)
  delete from coordinator.job_keys k
  where k.ctid = any (array(select i.place from idle i)) and not exists (select from coordinator.job_lanes l where l.hash = k.hash);
  get diagnostics v_count = row_count;
  -- Delete charges of periods before the previous one. For a budget that its keys share, claims merge them.
  delete from coordinator.job_charges c
  where c.ctid = any (array(
    select o.ctid from coordinator.job_limits l
    cross join lateral (select coordinator.limit_period(l.period, v_now) as began_at) p
    cross join lateral (select coordinator.limit_period(l.period, p.began_at - interval '1 second') as began_at) b
    join coordinator.job_charges o on o.limit_id = l.id and o.period_at < b.began_at and o.job_id is null
    where l.per_key and l.kind = 'budget' limit p_limit for update of o skip locked));
  get diagnostics v_old = row_count;
  return v_count + v_old;
end
$$;
comment on function coordinator.limit_prune_keys(integer) is
  'Delete up to p_limit rows of keys without jobs to claim and with full buckets, and up to p_limit charges of keys in old periods. Return how many rows were deleted. Repeat until 0. No event.';
