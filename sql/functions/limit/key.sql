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

create or replace function coordinator.limit_take_turns(
  p_class bigint, p_limit integer, p_share integer, p_after bigint, p_met bigint[], p_picked uuid[], p_now timestamptz,
  out ids uuid[], out last boolean, out short bigint[], out more bigint[], out rooms integer[], out "full" bigint[], out busy bigint[],
  out others bigint[], out hashes bigint[], out turn bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_most   constant integer := greatest(1, p_limit / p_share); -- lanes
  v_limits record;
  v_line   record;
  v_fit    record;
begin
  select array_agg(l.id) as ids, array_agg(l.id) filter (where l.kind = 'slots') as slots, array_agg(l.slots) filter (where l.kind = 'slots') as sizes,
         bool_or(l.kind <> 'slots') as gauged into v_limits
  from coordinator.job_classes c join coordinator.job_limits l on l.id = any (c.limit_ids) and l.per_key where c.id = p_class;
  with line as materialized (
    select p.ctid as place, p.turn, p.lane_id from coordinator.job_permits p
    where p.class_id = p_class and p.turn > p_after and p.lane_id <> all (p_met) order by p.turn limit v_most for update skip locked)
  select array_agg(l.place) as places, array_agg(l.turn) as turns, array_agg(l.lane_id) as lanes, array_agg(e.hash) as hashes, array_agg(e.weight) as weights,
         array_agg(coalesce(e.hash is null or e.locked = cardinality(v_limits.ids), false)) as held into v_line
  from line l
  -- One lookup per lane and key, whatever the statistics say; without a weight, the lane was deleted.
  left join lateral (
    select e.hash, e.weight,
           (select count(*) from (select from coordinator.job_keys k where k.limit_id = any (v_limits.ids) and k.hash = e.hash for update skip locked) k) as locked
    from coordinator.job_lanes e where e.id = l.lane_id offset 0) e on true;
  last := coalesce(cardinality(v_line.places), 0) < v_most;
  if v_line.places is null then
    return;
  end if;
  if v_limits.gauged then
    v_fit := coordinator.limit_key_fits(p_class, v_line.lanes, v_line.hashes, array(select coalesce(p_share * w, 0) from unnest(v_line.weights) w), p_now);
  else
    select null::integer[] as fits, null::boolean[] as budgets into v_fit;
  end if;
  -- A later statement sees everything that earlier claims have started.
  with sized as materialized (
    select unnest(v_limits.slots) as id, unnest(v_limits.sizes) as slots),
  picked as materialized (
    select coordinator.limit_hash(j.project_id, j.key) as hash, l.id as limit_id, count(*) as jobs
    from (select o.* from coordinator.jobs_open o where o.id = any (p_picked) offset 0) j join coordinator.job_classes c on c.id = j.class_id
    join coordinator.job_limits l on l.id = any (c.limit_ids) and l.id = any (v_limits.slots) group by 1, 2),
  line as materialized (
    select unnest(v_line.places) as place, unnest(v_line.turns) as turn, unnest(v_line.lanes) as lane_id, unnest(v_line.hashes) as hash,
           unnest(v_line.weights) as weight, unnest(v_line.held) as held, unnest(v_fit.fits) as fits, unnest(v_fit.budgets) as budget),
  next as materialized (
    select s.*, (select min(l.slots - coalesce((select k.jobs from picked k where k.hash = s.hash and k.limit_id = l.id), 0)
                            - (select count(*) from coordinator.jobs_running r where r.key_hash = s.hash and l.id = any (r.slots)))
                 from sized l where s.held and s.hash is not null) as free
    from (select d.*, sum(d.share) over (order by d.turn rows unbounded preceding) - d.share as before
          from (select distinct on (l.lane_id) l.*, p_share * l.weight as share from line l where l.weight is not null order by l.lane_id, l.turn) d) s
    where s.before < p_limit),
  lane as materialized (
    select n.*, array(select b.ctid from coordinator.jobs_ready b where b.class_id = p_class and b.lane_id = n.lane_id
                      order by b.rank, b.id limit n.jobs for update skip locked) as found
    from (select n.*, least(n.share, p_limit - n.before, r.room)::integer as jobs, r.room
          from next n cross join lateral (select case when n.held then greatest(0, least(n.free, n.fits, 2147483647)) else 0 end::integer as room offset 0) r offset 0) n),
  gone as (
    delete from coordinator.job_permits p
    where p.ctid = any (array(select l.place from line l where l.weight is null or l.lane_id in (select n.lane_id from next n)))),
  taken as (
    delete from coordinator.jobs_ready r where r.ctid = any (array(select unnest(l.found) from lane l)) returning r.id)
  select (select array_agg(t.id) from taken t), max(l.turn),
         array_agg(l.lane_id) filter (where cardinality(l.found) < l.jobs),
         array_agg(l.lane_id) filter (where cardinality(l.found) = l.jobs and l.room > l.jobs),
         array_agg(l.room - l.jobs) filter (where cardinality(l.found) = l.jobs and l.room > l.jobs),
         array_agg(l.lane_id) filter (where cardinality(l.found) = l.jobs and l.room = l.jobs),
         array_agg(l.lane_id) filter (where not l.held),
         array_agg(l.lane_id) filter (where l.held and (l.budget or l.free < (select min(s) from unnest(v_limits.sizes) s))),
         array_agg(l.hash) filter (where l.held and (l.budget or l.free < (select min(s) from unnest(v_limits.sizes) s)))
  into ids, turn, short, more, rooms, "full", busy, others, hashes from lane l;
  turn := coalesce(turn, v_line.turns[cardinality(v_line.turns)]); -- all lanes were deleted
  last := last and turn = v_line.turns[cardinality(v_line.turns)];
end
$$;
comment on function coordinator.limit_take_turns(bigint, integer, integer, bigint, bigint[], uuid[], timestamptz) is
  'Do the same as job_take_turns for a class with limits per key, besides jobs p_picked that this claim has already picked, without the lanes p_met; lock the keys. more and rooms: lanes that may have more jobs, and how many their keys have room for. full: lanes whose keys have no more room; busy: those that another transaction starts jobs for. others: lanes for whose keys other jobs run, and the hashes of these keys (see limit_hold_full). No event. Internal.';

create or replace function coordinator.limit_hold_full(p_class bigint, p_full bigint[], p_lanes bigint[], p_hashes bigint[]) returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_slots  bigint[];
  v_hashes bigint[];
  v_counts bigint[];
  v_freed  bigint[];
begin
  select array_agg(l.id) into v_slots
  from coordinator.job_classes c join coordinator.job_limits l on l.id = any (c.limit_ids) and l.per_key and l.kind = 'slots' where c.id = p_class;
  select array_agg(n.hash), array_agg(n.jobs) into v_hashes, v_counts
  from (select f.hash, (select count(*) from coordinator.jobs_running r where r.key_hash = f.hash and (r.slots && v_slots or r.charged)) as jobs
        from (select distinct u.hash from unnest(p_lanes, p_hashes) u (lane_id, hash) where u.lane_id = any (p_full)) f) n where n.jobs > 0;
  if v_hashes is null then
    return '{}';
  end if;
  with held as materialized (
    select r.key_hash from coordinator.jobs_running r
    where r.key_hash = any (v_hashes) and (r.slots && v_slots or r.charged) order by r.id for key share skip locked)
  select array_agg(f.hash) into v_freed
  from unnest(v_hashes, v_counts) f (hash, jobs) where f.jobs <> (select count(*) from held h where h.key_hash = f.hash);
  return array(select u.lane_id from unnest(p_lanes, p_hashes) u (lane_id, hash) where u.hash = any (v_freed));
end
$$;
comment on function coordinator.limit_hold_full(bigint, bigint[], bigint[], bigint[]) is
  'Lock the other attempts (see limit_take_turns) that fill the keys of the lanes p_full: an end that begins now waits, and sees the lanes. Return the lanes that must stay in the line, because another transaction is ending an attempt of their key. Internal.';

create or replace function coordinator.limit_unpark_lanes(p_limits bigint[], p_hashes bigint[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
  with lane as materialized (
    select f.limit_id, n.class_id, n.id
    from (select unnest(p_limits) as limit_id, unnest(p_hashes) as hash) f join coordinator.job_lanes n on n.hash = f.hash),
  class as materialized ( -- few, while a join would look one up for each lane
    select c.id, c.limit_ids from coordinator.job_classes c where c.id = any (array(select distinct l.class_id from lane l)))
  insert into coordinator.job_permits (class_id, turn, lane_id)
  select d.class_id, nextval('coordinator.job_turns'), d.id
  from (select distinct l.class_id, l.id from lane l join class c on c.id = l.class_id and l.limit_id = any (c.limit_ids)) d;
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
  from (select u.limit_id, u.hash, count(*) as jobs from (select unnest(p_limits) as limit_id, unnest(p_hashes) as hash) u group by 1, 2) e
  join (select o.id, o.slots from coordinator.job_limits o where o.id = any (p_limits) offset 0) l on l.id = e.limit_id
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
