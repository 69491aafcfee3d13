-- Limits per key: each key has slots of its own (see limit.sql).
--
-- What runs of a key is counted, in jobs_running. To start jobs of a key, a claim locks its row in job_keys, without waiting, and
-- counts in a later statement; so of several claims one counts at a time. A lane whose key is full leaves the line, so it costs
-- claims nothing. The end of an attempt brings it back if the key was full.
--
-- A lane cannot sleep. An end shares the rows of its keys (for key share) to the commit before it looks for lanes. So a claim that
-- finds a key full knows that no end is under way that did not see the lane; a key that it cannot lock stays in the line.

create or replace function coordinator.limit_hash(p_project_id bigint, p_key text) returns bigint
language sql immutable parallel safe
return hashtextextended(p_key, p_project_id);
comment on function coordinator.limit_hash(bigint, text) is
  'Return the hash of a project and a key; null: no key, and no limit. Internal.';

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
      select from coordinator.job_keys k where (k.limit_id, k.hash) in (select * from unnest(v_limits, v_hashes)) for key share)
    select count(*) into v_held from held;
    exit when v_held >= cardinality(v_limits); -- else one was just pruned
  end loop;
end
$$;
comment on function coordinator.limit_enter_keys(bigint[], bigint[]) is
  'Insert the rows of keys that get their first lane in a class, and keep them to the end of the transaction. No event. Internal.';

create or replace function coordinator.limit_rooms(p_class bigint, p_lanes bigint[], p_picked uuid[])
returns table (lane_id bigint, room integer, busy boolean)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_limits bigint[];
  v_slots  integer[];
  v_lanes  bigint[];
  v_hashes bigint[];
  v_held   bigint[];
begin
  select array_agg(l.id), array_agg(l.slots) into v_limits, v_slots
  from coordinator.job_classes c join coordinator.job_limits l on l.id = any (c.limit_ids) and l.per_key where c.id = p_class;
  select array_agg(l.id), array_agg(l.hash) into v_lanes, v_hashes from coordinator.job_lanes l where l.id = any (p_lanes);
  with held as materialized (
    select k.hash from coordinator.job_keys k where k.limit_id = any (v_limits) and k.hash = any (v_hashes) for update skip locked)
  select array_agg(f.hash) into v_held from (select h.hash from held h group by 1 having count(*) = cardinality(v_limits)) f;
  return query -- in a later statement, which sees what runs by all claims before
    with picked as materialized (
      select coordinator.limit_hash(j.project_id, j.key) as hash, l.id as limit_id, count(*) as jobs
      from coordinator.jobs_open j join coordinator.job_classes c on c.id = j.class_id
      join coordinator.job_limits l on l.id = any (c.limit_ids) and l.id = any (v_limits) where j.id = any (p_picked) group by 1, 2)
    select u.lane_id,
           case when u.hash is null then null when b.busy then 0
                else greatest(0, (select min(l.slots
                  - (select count(*) from coordinator.jobs_running r where r.key_hash = u.hash and l.id = any (r.slots))
                  - coalesce((select k.jobs from picked k where k.hash = u.hash and k.limit_id = l.id), 0))
                  from unnest(v_limits, v_slots) l (id, slots)))::integer end,
           b.busy
    from unnest(v_lanes, v_hashes) u (lane_id, hash)
    cross join lateral (select u.hash is not null and (u.hash = any (v_held)) is not true as busy) b;
end
$$;
comment on function coordinator.limit_rooms(bigint, bigint[], uuid[]) is
  'Lock the keys of lanes, and return how many jobs each lane may start (null: any number), besides those that this claim has picked; busy: another transaction has the key. Internal.';

create or replace function coordinator.limit_unpark(p_limits bigint[], p_hashes bigint[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
  perform from coordinator.job_keys k
  where (k.limit_id, k.hash) in (select * from unnest(p_limits, p_hashes)) order by k.limit_id, k.hash for key share;
  -- If a key was not full, its lanes are in the line.
  insert into coordinator.job_permits (class_id, turn, lane_id)
  select n.class_id, nextval('coordinator.job_turns'), n.id
  from (select l.id as limit_id, e.hash from (
          select u.limit_id, u.hash, count(*) as jobs from unnest(p_limits, p_hashes) u (limit_id, hash) group by 1, 2) e
        join coordinator.job_limits l on l.id = e.limit_id
        where e.jobs >= l.slots
           or e.jobs + (select count(*) from coordinator.jobs_running r where r.key_hash = e.hash and l.id = any (r.slots)) >= l.slots) f
  join coordinator.job_lanes n on n.hash = f.hash
  join coordinator.job_classes c on c.id = n.class_id and f.limit_id = any (c.limit_ids)
  group by n.class_id, n.id;
end
$$;
comment on function coordinator.limit_unpark(bigint[], bigint[]) is
  'Bring back into the line the lanes of keys that were full before attempts ended, each of which had a slot of one of these limits and keys. No event. Internal.';

create or replace function coordinator.limit_unpark_all(p_limit_id bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into coordinator.job_permits (class_id, turn, lane_id)
  select n.class_id, nextval('coordinator.job_turns'), n.id
  from coordinator.job_classes c join coordinator.job_lanes n on n.class_id = c.id
  where p_limit_id = any (c.limit_ids) and not exists (select from coordinator.job_permits p where p.class_id = n.class_id and p.lane_id = n.id);
end
$$;
comment on function coordinator.limit_unpark_all(bigint) is
  'Bring back into the line all lanes of a limit whose slots have changed. No event. Internal.';

create or replace function coordinator.limit_prune_keys(p_limit integer default 10000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_count integer;
begin
  perform coordinator.check_page(p_limit);
  -- Whoever makes a lane, or ends an attempt, of the key has its row.
  with idle as materialized (
    select k.ctid as place, k.hash from coordinator.job_keys k
    where not exists (select from coordinator.job_lanes l where l.hash = k.hash)
      and not exists (select from coordinator.jobs_running r where r.key_hash = k.hash)
    limit p_limit for update of k skip locked)
  delete from coordinator.job_keys k
  where k.ctid = any (array(select i.place from idle i))
    and not exists (select from coordinator.job_lanes l where l.hash = k.hash)
    and not exists (select from coordinator.jobs_running r where r.key_hash = k.hash);
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function coordinator.limit_prune_keys(integer) is
  'Delete up to p_limit rows of keys that have neither waiting nor running jobs; returns how many. Repeat until 0. No event.';
