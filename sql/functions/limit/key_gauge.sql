-- Rates and budgets per key: each key has its own bucket or budget (see limit.sql, key.sql).
--
-- The bucket of a key is in its row of job_keys. The first job of the key that is claimed creates the row, and limit_prune_keys deletes it
-- once the bucket is full again; a null level means a full bucket. What a key has used of a budget is the sum of its rows in job_charges.
-- A claim that has locked the rows of its keys (limit_take_turns) computes how many jobs of each key may start, and takes their costs once it
-- has the jobs (limit_take_keys).
--
-- A lane whose key cannot pay for the next job leaves the line (parked), so it costs claims nothing. The row says when the key can pay
-- (due_at). The next claim then returns the lane to the line, and the loop limit_refill wakes idle workers. The end of an attempt that
-- frees some of a budget returns the lane at once. Such an end and a claim that finds the budget short cannot miss each other, as with
-- slots (key.sql).

create or replace function coordinator.limit_charged_key(p_limit bigint, p_period_at timestamptz, p_hash bigint, out used bigint, out spent bigint, out settled bigint)
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
begin atomic
  select least(coalesce(sum(greatest(c.reserved, c.spent)), 0), 9000000000000000000)::bigint,
         least(coalesce(sum(c.spent), 0), 9000000000000000000)::bigint, count(*) filter (where c.job_id is null)
  from coordinator.job_charges c where c.limit_id = p_limit and c.period_at = p_period_at and c.hash = p_hash;
end;
comment on function coordinator.limit_charged_key(bigint, timestamptz, bigint) is
  'Add up the charges of the budget of a key in a period. used: reserved or spent; spent: the part that is spent; settled: the number of settled rows. Internal.';

create or replace function coordinator.limit_key_room(p_limit coordinator.job_limits, p_hash bigint, p_now timestamptz) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  if p_limit.kind = 'budget' then
    return p_limit.budget - (coordinator.limit_charged_key(p_limit.id, coordinator.limit_period(p_limit.period, p_now), p_hash)).used;
  end if;
  return floor(coalesce(
    (select coordinator.limit_level(p_limit, k.level, k.level_at, p_now) from coordinator.job_keys k where k.limit_id = p_limit.id and k.hash = p_hash),
    p_limit.burst));
end
$$;
comment on function coordinator.limit_key_room(coordinator.job_limits, bigint, timestamptz) is
  'Return how much jobs of a key can take now from a rate or budget per key; it may be negative. Internal.';

create or replace function coordinator.limit_key_fits(
  p_class bigint, p_lanes bigint[], p_hashes bigint[], p_counts integer[], p_now timestamptz, out fits integer[], out budgets boolean[])
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  select array_agg(f.jobs order by f.place), array_agg(f.budget order by f.place) into fits, budgets
  from (
    select u.place, coalesce(min(g.jobs), 2147483647)::integer as jobs, coalesce(bool_or(g.budget and g.jobs <= u.jobs), false) as budget
    from unnest(p_lanes, p_hashes, p_counts) with ordinality u (lane_id, hash, jobs, place)
    left join lateral (
      select l.kind = 'budget' as budget,
             case when r.room <= 0 then 0
                  when not l.name = any (c.limits) then case coordinator.limit_cost(l, null) when 0 then 2147483647
                                                        else least(r.room / coordinator.limit_cost(l, null), 2147483647) end
                  -- Jobs state their costs: count the first ones that fit, and do not read the others.
                  else (select case when count(*) = count(*) filter (where b.total <= r.room) then 2147483647 else count(*) filter (where b.total <= r.room) end
                        from (select sum(coordinator.limit_cost(l, j.limits)) over (order by f.rank, f.id) as total
                              from (select a.rank, a.id from coordinator.jobs_ready a where a.class_id = p_class and a.lane_id = u.lane_id
                                    order by a.rank, a.id limit u.jobs) f
                              join coordinator.jobs_open j on j.id = f.id) b) end as jobs
      from coordinator.job_classes c join coordinator.job_limits l on l.id = any (c.limit_ids) and l.per_key and l.kind <> 'slots'
      cross join lateral (select coordinator.limit_key_room(l, u.hash, p_now) as room offset 0) r
      where c.id = p_class) g on u.hash is not null
    group by u.place) f;
end
$$;
comment on function coordinator.limit_key_fits(bigint, bigint[], bigint[], integer[], timestamptz) is
  'Return how many jobs of each lane the rates and budgets of its key can pay for; budgets: whether a budget pays for no more than p_counts. Internal.';

create or replace function coordinator.limit_take_keys(p_class bigint, p_ids uuid[], p_full bigint[], p_now timestamptz) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_beyond uuid[];
  v_ids    uuid[];
  v_lacked bigint[];
  v_hashes bigint[];
begin
  -- The jobs that were read before are not always the jobs that were taken.
  v_beyond := array(
    select distinct t.id
    from (select j.id, c.cost, sum(c.cost) over (partition by l.id, c.hash order by j.priority desc, j.scheduled_at, j.id) as total,
                 coordinator.limit_key_room(l, c.hash, p_now) as room
          from (select o.* from coordinator.jobs_open o where o.id = any (p_ids) offset 0) j
          cross join (select l.* from coordinator.job_classes k join coordinator.job_limits l on l.id = any (k.limit_ids) and l.per_key and l.kind <> 'slots'
                      where k.id = p_class offset 0) l
          cross join lateral (select coordinator.limit_cost(m, j.limits) as cost, coordinator.limit_hash(j.project_id, j.key) as hash
                              from coordinator.job_limits m where m.id = l.id) c
          where j.key is not null) t
    where t.total > t.room or t.room <= 0);
  v_ids := array(select u.id from unnest(p_ids) with ordinality u (id, place) where u.id <> all (v_beyond) order by u.place);

  with taken as materialized (
    select m.id as limit_id, coordinator.limit_hash(j.project_id, j.key) as hash, j.key, sum(coordinator.limit_cost(m, j.limits)) as cost
    from (select o.* from coordinator.jobs_open o where o.id = any (v_ids) offset 0) j join coordinator.job_classes c on c.id = j.class_id
    join coordinator.job_limits m on m.id = any (c.limit_ids) and m.per_key and m.kind <> 'slots'
    where j.key is not null group by 1, 2, 3)
  update coordinator.job_keys k
  set level = coalesce(coordinator.limit_level(l, k.level, k.level_at, p_now), l.burst) - t.cost, level_at = greatest(p_now, k.level_at),
      key = t.key, due_at = case when k.parked then k.due_at end -- lanes of other classes may have left the line
  from taken t join coordinator.job_limits l on l.id = t.limit_id
  where k.limit_id = t.limit_id and k.hash = t.hash
    and k.ctid = any (array(select (select o.ctid from coordinator.job_keys o where o.limit_id = m.limit_id and o.hash = m.hash) from taken m)); -- otherwise it reads all keys
  insert into coordinator.job_charges (limit_id, period_at, job_id, reserved, hash)
  select l.id, coordinator.limit_period(l.period, p_now), j.id, coordinator.limit_cost(l, j.limits), coordinator.limit_hash(j.project_id, j.key)
  from (select o.* from coordinator.jobs_open o where o.id = any (v_ids) offset 0) j join coordinator.job_classes c on c.id = j.class_id
  join coordinator.job_limits l on l.id = any (c.limit_ids) and l.per_key and l.kind = 'budget'
  where j.key is not null;

  -- For lanes that left the line, store when their keys can pay for the next job.
  with next as materialized (
    select l.id as limit_id, n.hash, n.key, coordinator.limit_cost(l, f.limits) as cost, l.kind, l.period, l.rate, l.per, l.burst,
           coordinator.limit_key_room(l, n.hash, p_now) as room
    from coordinator.job_lanes n
    join coordinator.job_classes c on c.id = n.class_id
    join coordinator.job_limits l on l.id = any (c.limit_ids) and l.per_key and l.kind <> 'slots'
    cross join lateral (select j.limits from coordinator.jobs_ready r join coordinator.jobs_open j on j.id = r.id
                        where r.class_id = n.class_id and r.lane_id = n.id order by r.rank, r.id limit 1) f
    where n.id = any (p_full) and n.hash is not null),
  parked as (
    update coordinator.job_keys k
    set key = n.key, parked = true,
        due_at = least(case when k.parked then k.due_at end, case when n.kind = 'budget' then coalesce(coordinator.limit_period_end(n.period, p_now), 'infinity')
                      else k.level_at + make_interval(secs => 0.001 + greatest(0.02, (n.cost - k.level) * extract(epoch from n.per)::double precision / n.rate)) end)
    from next n
    where k.limit_id = n.limit_id and k.hash = n.hash and (n.cost > n.room or n.room <= 0)
      and k.ctid = any (array(select (select o.ctid from coordinator.job_keys o where o.limit_id = m.limit_id and o.hash = m.hash) from next m))
    returning k.limit_id, k.hash, n.kind)
  select array_agg(p.limit_id), array_agg(p.hash) into v_lacked, v_hashes from parked p where p.kind = 'budget';
  if v_lacked is not null then
    perform coordinator.limit_lack(b.id, null) from (select distinct u as id from unnest(v_lacked) u) b;
    perform coordinator.limit_exhaust(l, 'coordinator', p_now, u.hash)
    from unnest(v_lacked, v_hashes) u (id, hash) join coordinator.job_limits l on l.id = u.id;
  end if;
  insert into coordinator.job_permits (class_id, turn, lane_id) -- lanes that left the line although their keys can pay after all
  select n.class_id, nextval('coordinator.job_turns'), n.id
  from coordinator.job_lanes n join coordinator.job_classes c on c.id = n.class_id
  where n.id = any (p_full)
    and not exists (select from unnest(c.limit_ids) l join coordinator.job_limits m on m.id = l where m.per_key and m.kind = 'slots')
    and not exists (select from unnest(c.limit_ids) l
                    cross join lateral (select from coordinator.job_keys k where k.limit_id = l and k.hash = n.hash and k.parked offset 0) k);
  if v_beyond <> '{}' then
    perform coordinator.job_make_ready(v_beyond, 'coordinator', p_now, p_tell => false, p_wait => false);
  end if;
  return v_ids;
end
$$;
comment on function coordinator.limit_take_keys(bigint, uuid[], bigint[], timestamptz) is
  'Take the costs of jobs that are being claimed from rates and budgets per key. The caller has locked their rows in job_keys. Return the jobs that fit, and put the others back. p_full: lanes that left the line; they return when their keys can pay. Internal.';

create or replace function coordinator.limit_unpark_due(p_limits bigint[], p_now timestamptz) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_limits bigint[];
  v_hashes bigint[];
begin
  with due as materialized (
    select o.place from unnest(p_limits) l (id) cross join lateral (
      select k.ctid as place from coordinator.job_keys k where k.limit_id = l.id and k.due_at <= p_now and k.parked
      order by k.due_at limit 1000 for update skip locked) o),
  back as (
    update coordinator.job_keys k set parked = false where k.ctid = any (array(select d.place from due d)) returning k.limit_id, k.hash)
  select array_agg(b.limit_id), array_agg(b.hash) into v_limits, v_hashes from back b;
  if v_limits is not null then
    perform coordinator.limit_unpark_lanes(v_limits, v_hashes);
  end if;
  return coalesce(cardinality(v_limits), 0);
end
$$;
comment on function coordinator.limit_unpark_due(bigint[], timestamptz) is
  'Return lanes to the line whose keys can pay for the next job again, for up to 1,000 keys of each limit. Return the number of keys. No event. Internal.';

create or replace function coordinator.limit_wake_keys(p_limits bigint[], p_now timestamptz) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_count integer;
begin
  perform coordinator.limit_unpark_due(p_limits, p_now);
  with due as materialized (
    select o.place from unnest(p_limits) l (id) cross join lateral (
      select k.ctid as place from coordinator.job_keys k where k.limit_id = l.id and k.due_at <= p_now order by k.due_at limit 1000 for update skip locked) o),
  told as (
    update coordinator.job_keys k set due_at = null where k.ctid = any (array(select d.place from due d)) and not k.parked returning k.limit_id),
  gone as (
    delete from coordinator.job_limit_waits w where w.ctid = any (array(
      select o.ctid from coordinator.job_limit_waits o where o.limit_id in (select t.limit_id from told t) for update skip locked))),
  said as (
    insert into coordinator.events (type, project, key, actor, at, data)
    select 'limit.freed', p.name, l.name, 'coordinator', p_now, '{}'
    from coordinator.job_limits l join coordinator.projects p on p.id = l.project_id where l.id in (select t.limit_id from told t) order by l.id)
  select count(*) into v_count from told;
  return v_count;
end
$$;
comment on function coordinator.limit_wake_keys(bigint[], timestamptz) is
  'Wake workers for keys that can pay for the next job and that no claim has visited since. Return the number of keys. Internal.';
