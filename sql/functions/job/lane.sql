-- Lanes (see job.sql): in a fair queue, or with a limit per key, the jobs of each key of a class have a lane, and lanes take turns. A
-- lane exists while it has jobs that can be claimed: its first job inserts it, with a permit at the end of the line, and the claim that
-- finds it empty deletes both. Permits are rows that are only inserted and deleted, so claims never wait for each other.
--
-- No wake-up is lost. A transaction that adds jobs to a lane locks its row (for key share) until it commits. A claim deletes a lane
-- only if it can lock the row without waiting and if a later statement, which sees everything committed before, still finds the lane
-- empty.

create or replace function coordinator.job_lanes_enter(p_classes bigint[], p_keys text[]) returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_lanes  bigint[];
  v_held   jsonb; -- by class and key
  v_new    bigint[];
  v_hashes bigint[];
begin
  loop
    -- In the order of their keys, like every other transaction.
    with added as (
      insert into coordinator.job_lanes (class_id, key, weight, hash)
      select l.class_id, l.key, coalesce((q.weights ->> l.key)::integer, 1),
             case when c.keyed and l.key <> '' then coordinator.limit_hash(c.project_id, l.key) end
      from (select distinct u.class_id, u.key from unnest(p_classes, p_keys) u (class_id, key) where u.key is not null) l
      join coordinator.job_classes c on c.id = l.class_id
      join coordinator.queues q on q.project_id = c.project_id and q.name = c.queue and (q.fair or c.keyed)
      -- One lookup per key: while statistics say that there are few lanes, an anti-join would read all of them for each key.
      where (select true from coordinator.job_lanes e where e.class_id = l.class_id and e.key = l.key) is null
      order by l.class_id, l.key
      on conflict on constraint job_lanes_key do nothing returning id, class_id, hash),
    line as (
      insert into coordinator.job_permits (class_id, turn, lane_id)
      select a.class_id, nextval('coordinator.job_turns'), a.id from added a)
    select array_agg(a.class_id), array_agg(a.hash) into v_new, v_hashes from added a where a.hash is not null;
    if v_new is not null then
      perform coordinator.limit_enter_keys(v_new, v_hashes);
    end if;

    with held as materialized (
      select l.id, l.class_id, l.key from coordinator.job_lanes l
      where (l.class_id, l.key) in (select u.class_id, u.key from unnest(p_classes, p_keys) u (class_id, key) where u.key is not null)
      order by l.id for key share)
    select coalesce(jsonb_object_agg(h.class_id || ' ' || h.key, h.id), '{}') into v_held from held h;
    select array_agg(case when u.key is null or not (q.fair or c.keyed) then 0 else (v_held ->> (u.class_id || ' ' || u.key))::bigint end order by u.place)
    into v_lanes
    from unnest(p_classes, p_keys) with ordinality u (class_id, key, place)
    join coordinator.job_classes c on c.id = u.class_id
    join coordinator.queues q on q.project_id = c.project_id and q.name = c.queue;
    exit when array_position(v_lanes, null) is null; -- otherwise a claim has just deleted an empty lane
  end loop;
  return v_lanes;
end
$$;
comment on function coordinator.job_lanes_enter(bigint[], text[]) is
  'Return the lane of each job of fair queues and of classes with a limit per key, given its class and key (null: it needs none), and 0 for other jobs; insert new lanes, and lock all of them until the end of the transaction. No event. Internal.';
