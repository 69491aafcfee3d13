-- The places of queued jobs: when the policy of a queue or a limit changes, queued jobs get their places according to the new policy.

create or replace function coordinator.job_place(p_class bigint, p_limit integer, p_wait boolean) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_of    record;
  v_at    coordinator.job_placements;
  v_next  coordinator.jobs_ready[]; -- jobs with their new places, in order
  v_rows  tid[]; -- rows that this transaction has locked
  v_moved tid[];
  v_ids   uuid[];
  v_keys  text[];
  v_ranks bigint[];
  v_lanes bigint[];
  v_count integer;
  v_held  integer; -- the number of locked lanes
begin
  if p_wait then
    select * into v_at from coordinator.job_placements t where t.class_id = p_class for update;
  else
    select * into v_at from coordinator.job_placements t where t.class_id = p_class for update skip locked;
  end if;
  if v_at.class_id is null then
    return 0;
  end if;
  select q.fair or c.keyed as laned, q.ageing into v_of
  from coordinator.job_classes c join coordinator.queues q on q.project_id = c.project_id and q.name = c.queue where c.id = p_class;
  v_next := array(
    select r from coordinator.jobs_ready r
    where r.class_id = p_class and (r.lane_id, r.rank, r.id) > (v_at.lane_id, v_at.rank, v_at.id) order by r.lane_id, r.rank, r.id limit p_limit);
  v_count := cardinality(v_next);
  if p_wait then
    v_rows := array(select r.ctid from unnest(v_next) n cross join lateral (
                      select o.ctid from coordinator.jobs_ready o
                      where o.class_id = n.class_id and o.lane_id = n.lane_id and o.rank = n.rank and o.id = n.id for update) r);
  else
    v_rows := array(select r.ctid from unnest(v_next) n cross join lateral (
                      select o.ctid from coordinator.jobs_ready o
                      where o.class_id = n.class_id and o.lane_id = n.lane_id and o.rank = n.rank and o.id = n.id for update skip locked) r);
  end if;
  select array_agg(r.ctid), array_agg(r.id), array_agg(coalesce(j.key, '')), array_agg(coordinator.job_rank(j.scheduled_at, j.priority, v_of.ageing))
  into v_moved, v_ids, v_keys, v_ranks
  from coordinator.jobs_ready r join coordinator.jobs_open j on j.id = r.id and j.id = any (array(select n.id from unnest(v_next) n))
  where r.ctid = any (v_rows)
    and (r.rank <> coordinator.job_rank(j.scheduled_at, j.priority, v_of.ageing)
         or v_of.laned <> (r.lane_id > 0));
  if v_ids is not null then
    v_lanes := case when v_of.laned then coordinator.job_lanes_enter(array_fill(p_class, array[cardinality(v_ids)]), v_keys)
                    else array_fill(0::bigint, array[cardinality(v_ids)]) end;
    delete from coordinator.jobs_ready r where r.ctid = any (v_moved);
    insert into coordinator.jobs_ready (class_id, lane_id, rank, id) select p_class, u.* from unnest(v_lanes, v_ranks, v_ids) u;
  end if;
  v_at.again := v_at.again or cardinality(v_rows) < v_count;
  if v_count = p_limit or v_at.again then
    update coordinator.job_placements t
    set placed_count = t.placed_count + v_count, again = v_at.again and v_count = p_limit,
        total_count = coalesce(t.total_count, (select count(*) from coordinator.jobs_ready r where r.class_id = p_class)),
        lane_id = case when v_count = p_limit then (v_next[v_count]).lane_id else -1 end,
        rank = case when v_count = p_limit then (v_next[v_count]).rank else 0 end,
        id = case when v_count = p_limit then (v_next[v_count]).id else '00000000-0000-0000-0000-000000000000' end
    where t.class_id = p_class;
    return case when cardinality(v_rows) > 0 then v_count else 0 end; -- if others have locked all of them, the loop repeats this a second later
  end if;

  if not v_of.laned then
    perform from coordinator.job_lanes l where l.class_id = p_class order by l.id for update skip locked;
    get diagnostics v_held = row_count;
    if not p_wait and v_held < (select count(*) from coordinator.job_lanes l where l.class_id = p_class) then
      return 0; -- a claim has locked one
    end if;
    delete from coordinator.job_lanes l where l.class_id = p_class;
    delete from coordinator.job_permits p where p.class_id = p_class;
  end if;
  delete from coordinator.job_placements t where t.class_id = p_class;
  update coordinator.job_classes c set arranging = false where c.id = p_class and c.arranging;
  perform coordinator.event_append('queue.arranged', p.name, c.queue, 'coordinator', coordinator.now_utc(), '{}')
  from coordinator.job_classes c join coordinator.projects p on p.id = c.project_id
  where c.id = p_class and not p_wait and not exists (
    select from coordinator.job_classes o where o.project_id = c.project_id and o.queue = c.queue and o.arranging);
  return v_count;
end
$$;
comment on function coordinator.job_place(bigint, integer, boolean) is
  'Place the next p_limit queued jobs of a class by the policy of its queue and its limits; return how many were looked at. Its caller keeps the policy from being changed. With p_wait, wait for transactions that have the jobs; else the class is looked at again. Internal.';

create or replace function coordinator.queue_arrange(p_classes bigint[], p_ageings interval[] default '{}') returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_class bigint;
  v_left  integer := 1000;
begin
  -- Lanes are kept, and gain or lose jobs. Lanes whose keys were full return to the line, so that claims check them again.
  update coordinator.job_lanes l set hash = case when c.keyed and l.key <> '' then coordinator.limit_hash(c.project_id, l.key) end
  from coordinator.job_classes c
  where c.id = l.class_id and l.class_id = any (p_classes)
    and l.hash is distinct from case when c.keyed and l.key <> '' then coordinator.limit_hash(c.project_id, l.key) end;
  perform coordinator.limit_enter_keys(array_agg(l.class_id), array_agg(l.hash))
  from coordinator.job_lanes l where l.class_id = any (p_classes) and l.hash is not null having count(*) > 0;
  insert into coordinator.job_permits (class_id, turn, lane_id)
  select l.class_id, nextval('coordinator.job_turns'), l.id
  from coordinator.job_lanes l
  where l.class_id = any (p_classes) -- trap: with "not exists", statistics decide whether it reads the line once, or once for each lane
    and l.id not in (select p.lane_id from coordinator.job_permits p where p.class_id = any (p_classes) and p.lane_id is not null);
  insert into coordinator.job_placements as t (class_id, ageings, began_at)
  select c, p_ageings, coordinator.now_utc() from unnest(p_classes) c order by 1
  on conflict on constraint job_placements_pkey do update
  set ageings = array(select distinct a from unnest(t.ageings || excluded.ageings) a), began_at = excluded.began_at, total_count = null, placed_count = 0,
      lane_id = -1, rank = 0, id = '00000000-0000-0000-0000-000000000000', again = false;
  update coordinator.job_classes c set arranging = true where c.id = any (p_classes) and not c.arranging;
  foreach v_class in array p_classes loop -- only a few classes are rearranged at once
    while v_left > 0 and exists (select from coordinator.job_placements t where t.class_id = v_class) loop
      v_left := v_left - greatest(1, coordinator.job_place(v_class, least(v_left, 1000), true));
    end loop;
  end loop;
end
$$;
comment on function coordinator.queue_arrange(bigint[], interval[]) is
  'Let the queued jobs of classes have the places that the policy of their queues and their limits give them: up to 1,000 at once, the others by queue_place. p_ageings: what the queue had for an ageing. Its caller has the keys of the queues exclusively. No event. Internal.';

create or replace function coordinator.queue_place(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_of    record;
  v_count integer := 0;
begin
  perform coordinator.check_page(p_limit);
  for v_of in
    select t.class_id, c.project_id, c.queue from coordinator.job_placements t join coordinator.job_classes c on c.id = t.class_id order by t.began_at, t.class_id
  loop
    exit when v_count > 0;
    if pg_try_advisory_xact_lock_shared(coordinator.queue_key(v_of.project_id, v_of.queue)) then -- the policy cannot change meanwhile
      v_count := coordinator.job_place(v_of.class_id, p_limit, false);
    end if;
  end loop;
  return v_count;
end
$$;
comment on function coordinator.queue_place(integer) is
  'Place up to p_limit queued jobs of a queue by its current policy; return how many were checked. Repeat until 0.';
