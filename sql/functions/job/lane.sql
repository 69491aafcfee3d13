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
  v_laned  bigint[];
  v_lanes  bigint[];
  v_new    bigint[];
  v_hashes bigint[];
begin
  v_laned := array(select c.id from coordinator.job_classes c join coordinator.queues q on q.project_id = c.project_id and q.name = c.queue
                   where c.id = any (p_classes) and (q.fair or c.keyed));
  loop
    with lane as materialized ( -- one lookup per key: while statistics say that there are few lanes, a join would read all of them
      select k.class_id, k.key, e.id
      from (select distinct u.class_id, u.key collate "C" as key from unnest(p_classes, p_keys) u (class_id, key)
            where u.key is not null and u.class_id = any (v_laned) order by 1, 2) k
      left join lateral (select l.id from coordinator.job_lanes l where l.class_id = k.class_id and l.key = k.key for key share) e on true),
    added as (
      insert into coordinator.job_lanes (class_id, key, weight, hash)
      select l.class_id, l.key, coalesce((q.weights ->> l.key)::integer, 1),
             case when c.keyed and l.key <> '' then coordinator.limit_hash(c.project_id, l.key) end
      from lane l join coordinator.job_classes c on c.id = l.class_id
      join coordinator.queues q on q.project_id = c.project_id and q.name = c.queue
      where l.id is null order by l.class_id, l.key -- like every other transaction
      on conflict on constraint job_lanes_key do nothing returning id, class_id, key, hash),
    line as (
      insert into coordinator.job_permits (class_id, turn, lane_id)
      select a.class_id, nextval('coordinator.job_turns'), a.id from added a)
    select array_agg(case when u.key is null or u.class_id <> all (v_laned) then 0 else s.id end order by u.place),
           (select array_agg(a.class_id) from added a where a.hash is not null), (select array_agg(a.hash) from added a where a.hash is not null)
    into v_lanes, v_new, v_hashes
    from unnest(p_classes, p_keys) with ordinality u (class_id, key, place)
    left join (select l.class_id, l.key, l.id from lane l where l.id is not null union all select a.class_id, a.key, a.id from added a) s
      on s.class_id = u.class_id and s.key = u.key collate "C";
    if v_new is not null then
      perform coordinator.limit_enter_keys(v_new, v_hashes);
    end if;
    exit when array_position(v_lanes, null) is null; -- otherwise another transaction has just inserted a lane
  end loop;
  return v_lanes;
end
$$;
comment on function coordinator.job_lanes_enter(bigint[], text[]) is
  'Return the lane of each job of fair queues and of classes with a limit per key, given its class and key (null: it needs none), and 0 for other jobs; insert new lanes, and lock all of them until the end of the transaction. No event. Internal.';
