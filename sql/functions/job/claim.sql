-- Claims (see job.sql): a worker takes the best jobs that it can run. The same call completes the jobs that it has finished.
--
-- Claims lock jobs with skip locked, so they wait for nobody and never return a job twice. If a worker can take from several plain
-- classes, a query without locks first determines how many of the best jobs each class has. Fair classes are visited in turn; each
-- claim begins with a different one.
--
-- While a session holds an old snapshot, vacuum cannot remove the entries of jobs claimed since then, and each scan of a class steps
-- over all of them. A scan that steps over thousands of entries therefore stores a floor for each class in a setting of the session
-- (job_floors): the position where the scan ended (in a fair class: the position in the line of its lanes). The session's next scans
-- begin there, for one to ten seconds. This period is long enough that full scans take at most a tenth of the time. A floor is only a
-- hint. Jobs below it (committed late, released, or of a higher priority) are found by the next full scan, or at once if a scan from
-- the floor finds too few jobs.

create or replace function coordinator.job_floors() returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_floors constant jsonb := nullif(current_setting('coordinator.job_floors', true), '');
begin
  return case when (v_floors ->> 'until')::double precision > extract(epoch from clock_timestamp()) then v_floors else '{}' end;
end
$$;
comment on function coordinator.job_floors() is
  'Return the positions from which this session looks for jobs, by class (rank and id; for a fair class the turn, by "turn <class>"), and until when they are valid (seconds since 1970); empty: it looks at all jobs. Internal.';

create or replace function coordinator.job_floor_raise(p_last jsonb, p_excess bigint, p_began timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_floors jsonb;
begin
  if p_excess <= 5000 and coalesce(current_setting('coordinator.job_floors', true), '') = '' then
    return;
  end if;
  v_floors := coordinator.job_floors();
  if v_floors = '{}' and p_excess > 5000 then
    v_floors := jsonb_build_object('until', extract(epoch from clock_timestamp())
                                            + least(10, greatest(1, 10 * extract(epoch from clock_timestamp() - p_began))));
  end if;
  if v_floors <> '{}' and p_last <> '{}' then
    perform set_config('coordinator.job_floors', (v_floors || p_last)::text, false);
  end if;
end
$$;
comment on function coordinator.job_floor_raise(jsonb, bigint, timestamptz) is
  'Store where a scan that began at p_began ended, if this session has floors, or if the scan read thousands of entries too many (p_excess). Internal.';

create or replace function coordinator.job_take_best(
  p_classes bigint[], p_lanes bigint[], p_counts integer[], p_floors jsonb default null, out ids uuid[], out short integer[], out last jsonb)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
  with want as materialized (
    select w.*, coalesce((p_floors #>> array[w.class_id::text, '0'])::bigint, -9223372036854775808) as floor,
           (p_floors #>> array[w.class_id::text, '1'])::uuid as floor_id
    from unnest(p_classes, p_lanes, p_counts) with ordinality w (class_id, lane_id, jobs, place)),
  taken as (
    delete from coordinator.jobs_ready r
    where r.ctid = any (array(
      select x from want w cross join lateral unnest(array(
        select b.ctid from coordinator.jobs_ready b where b.class_id = w.class_id and b.lane_id = w.lane_id
          and (b.rank, b.id) > (w.floor, w.floor_id)
        order by b.rank, b.id limit w.jobs for update skip locked)) x))
    returning r.id, r.class_id, r.lane_id, r.rank)
  select (select array_agg(t.id) from taken t),
         array(select w.place from want w
               left join (select t.class_id, t.lane_id, count(*) as jobs from taken t group by 1, 2) t using (class_id, lane_id)
               where w.jobs > coalesce(t.jobs, 0)),
         case when p_floors is not null then
           (select jsonb_object_agg(l.class_id, jsonb_build_array(l.rank, l.id))
            from (select distinct on (t.class_id) t.* from taken t order by t.class_id, t.rank desc, t.id desc) l) end
  into ids, short, last;
end
$$;
comment on function coordinator.job_take_best(bigint[], bigint[], integer[], jsonb) is
  'Remove the best jobs of lanes from jobs_ready: from each lane as many as p_counts says, above the floor of its class. Returns their ids, the indexes of the lanes that had fewer and, unless p_floors is null, the last position by class. No event. Internal.';

create or replace function coordinator.job_pick(p_classes bigint[], p_limit integer, p_floors jsonb) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_open    bigint[] := p_classes;
  v_classes bigint[] := p_classes;
  v_counts  integer[] := array[p_limit];
  v_taken   record;
  v_ids     uuid[] := '{}';
  v_last    jsonb := '{}';
  v_began   timestamptz := clock_timestamp();
  v_read    bigint := pg_stat_get_xact_tuples_returned('coordinator.jobs_ready_pkey'::regclass);
  v_floored constant boolean := p_floors <> '{}' or coalesce(current_setting('coordinator.job_floors', true), '') <> '';
begin
  loop
    if cardinality(v_open) > 1 then
      select array_agg(b.class_id), array_agg(b.jobs) into v_classes, v_counts
      from (select m.class_id, count(*)::integer as jobs
            from (select r.class_id from unnest(v_open) c (id) cross join lateral (
                    select r.class_id, r.rank, r.id from coordinator.jobs_ready r where r.class_id = c.id and r.lane_id = 0
                      and (r.rank, r.id) > (coalesce((p_floors #>> array[c.id::text, '0'])::bigint, -9223372036854775808), (p_floors #>> array[c.id::text, '1'])::uuid)
                    order by r.rank, r.id limit p_limit - cardinality(v_ids)) r
                  order by r.rank, r.id limit p_limit - cardinality(v_ids)) m
            group by m.class_id) b;
      exit when v_classes is null;
    end if;
    v_taken := coordinator.job_take_best(v_classes, array_fill(0::bigint, array[cardinality(v_classes)]), v_counts,
                                          -- It steps over what the scans before it stepped over: ask for its last positions only if that was much.
                                          case when v_floored or pg_stat_get_xact_tuples_returned('coordinator.jobs_ready_pkey'::regclass) > 4000 then p_floors end);
    v_ids := v_ids || v_taken.ids;
    v_last := v_last || coalesce(v_taken.last, '{}');
    exit when cardinality(v_ids) = p_limit or cardinality(v_open) = 1;
    -- Another claim took jobs that the first query counted: try the other classes again.
    v_open := array(select o from unnest(v_open) o where o <> all (array(select v_classes[s] from unnest(v_taken.short) s)));
    exit when v_open = '{}';
    v_classes := v_open;
    v_counts := array[p_limit - cardinality(v_ids)];
  end loop;
  v_read := pg_stat_get_xact_tuples_returned('coordinator.jobs_ready_pkey'::regclass) - v_read;
  perform coordinator.job_floor_raise(v_last, v_read - 3 * p_limit * cardinality(p_classes), v_began);
  return v_ids;
end
$$;
comment on function coordinator.job_pick(bigint[], integer, jsonb) is
  'Remove up to p_limit of the best jobs of plain classes, above their floors, from jobs_ready, and return their ids. No event. Internal.';

create or replace function coordinator.job_take_turns(
  p_class bigint, p_limit integer, p_share integer, p_after bigint, out ids uuid[], out last boolean, out short bigint[], out more bigint[], out turn bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
  with found as materialized ( -- locks one permit after the other, until there are enough jobs
    select l.place, l.turn, e.id as lane_id, p_share * e.weight as share, r.place as job
    from (select p.ctid as place, p.turn, p.lane_id from coordinator.job_permits p
          where p.class_id = p_class and p.turn > p_after order by p.turn for update skip locked) l
    -- One lookup per lane, whatever the statistics say; without a row, the lane was deleted.
    left join lateral (select e.id, e.weight from coordinator.job_lanes e where e.id = l.lane_id offset 0) e on true
    left join lateral (select b.ctid as place from coordinator.jobs_ready b where b.class_id = p_class and b.lane_id = e.id
                       order by b.rank, b.id limit p_share * e.weight for update skip locked) r on true
    limit p_limit),
  lane as materialized (
    select f.place, f.turn, f.lane_id, count(f.job) < f.share as short, count(*) as rows from found f group by f.place, f.turn, f.lane_id, f.share),
  gone as (
    delete from coordinator.job_permits p where p.ctid = any (array(select l.place from lane l))),
  taken as (
    delete from coordinator.jobs_ready r where r.ctid = any (array(select f.job from found f where f.job is not null)) returning r.id)
  select (select array_agg(t.id) from taken t), coalesce(sum(l.rows), 0) < p_limit, array_agg(l.lane_id) filter (where l.short), array_agg(l.lane_id) filter (where not l.short), max(l.turn)
  into ids, last, short, more, turn from lane l;
end
$$;
comment on function coordinator.job_take_turns(bigint, integer, integer, bigint) is
  'Remove up to p_limit jobs from jobs_ready: from each lane in the line of a class, after the turn p_after, up to p_share by its weight. Remove the permits of these lanes. Returns the jobs, the lanes that had fewer jobs than their share and those that may have more, and the last turn; last: no other lane is in the line. No event. Internal.';

create or replace function coordinator.job_pick_fair(p_class bigint, p_limit integer, p_floors jsonb, p_picked uuid[] default null) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_share  integer := greatest(1, p_limit / 10); -- jobs that a lane of weight 1 contributes per turn
  v_left   integer := p_limit;
  v_counts integer[];
  v_taken  record;
  v_ids    uuid[] := '{}';
  v_more   bigint[] := '{}'; -- lanes that contributed their share
  v_short  bigint[] := '{}'; -- lanes that had fewer jobs than their share
  v_rooms  integer[] := '{}'; -- with limits per key: how many more jobs each lane of v_more may contribute
  v_full   bigint[] := '{}'; -- lanes that may contribute no more
  v_busy   bigint[] := '{}'; -- lanes for whose keys another claim starts jobs, or an attempt ends
  v_others bigint[] := '{}'; -- lanes for whose keys other jobs run
  v_hashes bigint[] := '{}'; -- of these keys
  v_rows   tid[]; -- of lanes
  v_floor  constant text := 'turn ' || p_class;
  v_turn   bigint := coalesce((p_floors ->> v_floor)::bigint, 0); -- the last turn that was taken
  v_now    constant timestamptz := coordinator.now_utc(); -- for what the rates and budgets of keys allow at this time
  v_began  timestamptz := clock_timestamp();
  v_read   bigint := pg_stat_get_xact_tuples_returned('coordinator.job_permits_pkey'::regclass);
begin
  if p_picked is not null then
    v_share := least(v_share, (select max(l.slots) from coordinator.job_classes c join coordinator.job_limits l on l.id = any (c.limit_ids) and l.per_key
                               where c.id = p_class));
  end if;
  while v_left > 0 loop -- lanes in the order of their turns
    if p_picked is null then
      v_taken := coordinator.job_take_turns(p_class, v_left, v_share, v_turn);
    else
      -- A lane that this claim meets again has another permit, perhaps from the end of an attempt whose slot was counted here: it stays.
      v_taken := coordinator.limit_take_turns(p_class, v_left, v_share, v_turn, v_short || v_more || v_full, p_picked, v_now);
      v_rooms := v_rooms || v_taken.rooms;
      v_full := v_full || v_taken.full;
      v_busy := v_busy || v_taken.busy;
      v_others := v_others || v_taken.others;
      v_hashes := v_hashes || v_taken.hashes;
      v_share := greatest(1, coalesce(cardinality(v_taken.ids) / cardinality(v_taken.short || v_taken.more || v_taken.full), 0));
    end if;
    exit when v_taken.turn is null;
    v_turn := v_taken.turn;
    v_ids := v_ids || v_taken.ids;
    v_short := v_short || v_taken.short;
    v_more := v_more || v_taken.more;
    v_left := p_limit - cardinality(v_ids);
    perform coordinator.job_floor_raise(
      jsonb_build_object(v_floor, v_turn), pg_stat_get_xact_tuples_returned('coordinator.job_permits_pkey'::regclass) - v_read - 3 * p_limit, v_began);
    exit when v_taken.last;
  end loop;
  while v_left > 0 and v_more <> '{}' loop -- no other lane is in the line: share the rest among those that have more
    select array_agg(s.id order by s.place), array_agg(s.room order by s.place), array_agg(greatest(0, least(s.share, v_left - s.before, s.room)) order by s.place)
    into v_more, v_rooms, v_counts
    from (select w.id, w.place, w.share, w.room, sum(w.share) over (order by w.place) - w.share as before
          from (select l.id, u.place, u.room, ceil(v_left::numeric * l.weight / sum(l.weight) over ()) as share
                from unnest(v_more, v_rooms) with ordinality u (id, room, place)
                cross join lateral (select e.id, e.weight from coordinator.job_lanes e where e.id = u.id offset 0) l) w) s;
    v_taken := coordinator.job_take_best(array_fill(p_class, array[cardinality(v_more)]), v_more, v_counts);
    v_ids := v_ids || v_taken.ids;
    v_left := p_limit - cardinality(v_ids);
    v_short := v_short || array(select v_more[s] from unnest(v_taken.short) s);
    v_full := v_full || array(select m from unnest(v_more, v_rooms, v_counts) with ordinality u (m, room, jobs, place)
                              where place <> all (v_taken.short) and room <= jobs);
    select coalesce(array_agg(u.m order by u.place), '{}'), coalesce(array_agg(u.room - u.jobs order by u.place), '{}') into v_more, v_rooms
    from unnest(v_more, v_rooms, v_counts) with ordinality u (m, room, jobs, place)
    where u.place <> all (v_taken.short) and (u.room <= u.jobs) is not true;
  end loop;
  if v_left > 0 and p_floors = '{}' and p_picked is null then -- jobs of lanes whose permits other claims hold at the moment
    with taken as (
      delete from coordinator.jobs_ready r
      where r.ctid = any (array(select b.ctid from coordinator.jobs_ready b where b.class_id = p_class
                                order by b.lane_id, b.rank, b.id limit v_left for update skip locked))
      returning r.id)
    select v_ids || array_agg(t.id) into v_ids from taken t;
  end if;
  if v_others && v_full then
    v_busy := v_busy || coordinator.limit_hold_full(p_class, v_full, v_others, v_hashes);
  end if;

  -- Lanes that contributed their full share are not checked, although most are now empty: if a job with the same key follows, creating the
  -- lane again costs the enqueue more than an empty turn costs a claim.
  v_rows := array(
    select l.ctid from coordinator.job_lanes l
    where l.id = any (v_short || array( -- without locking the lanes of full keys that have jobs
      select f from unnest(v_full) f where (select true from coordinator.jobs_ready r where r.class_id = p_class and r.lane_id = f limit 1) is null))
    for update skip locked);
  with gone as ( -- one lookup per lane, since an anti-join would read the whole class
    delete from coordinator.job_lanes l
    where l.ctid = any (v_rows) and (select true from coordinator.jobs_ready r where r.class_id = p_class and r.lane_id = l.id limit 1) is null
    returning l.id)
  insert into coordinator.job_permits (class_id, turn, lane_id)
  select p_class, nextval('coordinator.job_turns'), u.id from (select distinct m from unnest(v_short || v_more || v_busy) m) u (id)
  where u.id not in (select g.id from gone g);
  -- Lanes held by other transactions: their keys may have room after the commit, so mark the limits as lacking, and the loop wakes workers then.
  if p_picked is not null and v_ids = '{}' and exists (select from coordinator.job_permits p where p.class_id = p_class) then
    perform coordinator.limit_lack(l.id, v_now)
    from coordinator.job_classes c join coordinator.job_limits l on l.id = any (c.limit_ids) and l.per_key where c.id = p_class;
  end if;
  if p_picked is not null and exists (select from coordinator.job_classes c join coordinator.job_limits l on l.id = any (c.limit_ids)
                                      where c.id = p_class and l.per_key and l.kind <> 'slots') then
    v_ids := coordinator.limit_take_keys(p_class, v_ids, array(select f from unnest(v_full) f where f <> all (v_busy)), v_now);
  end if;
  return v_ids;
end
$$;
comment on function coordinator.job_pick_fair(bigint, integer, jsonb, uuid[]) is
  'Remove up to p_limit jobs of a class with lanes from jobs_ready, in turns of its lanes, and return their ids. p_picked: limits per key apply, including to these jobs, which the claim has already picked. No event. Internal.';

create or replace function coordinator.job_admit(
  p_project_id bigint, p_project text, p_agent uuid, p_worker text, p_ids uuid[], p_limit integer, p_waiting integer, p_first boolean, p_trees boolean,
  p_locks boolean, p_now timestamptz, out picked uuid[], out slots jsonb, out owned uuid[], out fences bigint[], out tokens jsonb[], out waiting uuid[], out rest uuid[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_locked record;
  v_doomed uuid[];
begin
  picked := p_ids;
  slots := '{}';
  owned := '{}';
  fences := '{}';
  tokens := '{}';
  waiting := '{}';
  rest := '{}';
  if p_trees then
    v_doomed := coordinator.job_doomed(p_project_id, p_ids, '{cancel,pause}');
    select t.picked, t.slots, t.waiting, t.rest into picked, slots, waiting, rest
    from coordinator.limit_take_trees(p_project_id, array(select i from unnest(p_ids) i where i <> all (v_doomed)),
                                      greatest(0, p_waiting - cardinality(v_doomed)), p_first, p_worker, p_now) t;
    if v_doomed <> '{}' then
      perform coordinator.job_make_waiting(v_doomed[:p_waiting - 900], 'tree', null, p_worker, p_now); -- 100 in a claim: the loop ends the others
      waiting := waiting || v_doomed[:p_waiting - 900];
      rest := rest || v_doomed[greatest(0, p_waiting - 900) + 1:];
    end if;
  end if;
  if p_locks then
    v_locked := coordinator.job_lock(p_project_id, p_project, p_agent, p_worker, picked, p_limit, p_waiting - cardinality(waiting), p_now);
    picked := v_locked.picked;
    owned := v_locked.owned;
    fences := v_locked.fences;
    tokens := v_locked.tokens;
    perform coordinator.limit_return_trees(slots, v_locked.waiting || v_locked.rest, p_worker, p_now);
    waiting := waiting || v_locked.waiting;
    rest := rest || v_locked.rest;
  elsif cardinality(picked) > p_limit then
    picked := array(select j.id from coordinator.jobs_open j where j.id = any (picked) order by j.priority desc, j.scheduled_at, j.id);
    perform coordinator.limit_return_trees(slots, picked[p_limit + 1:], p_worker, p_now);
    rest := rest || picked[p_limit + 1:];
    picked := picked[:p_limit];
  end if;
end
$$;
comment on function coordinator.job_admit(bigint, text, uuid, text, uuid[], integer, integer, boolean, boolean, boolean, timestamptz) is
  'Select the jobs that can start from those that a claim removed from jobs_ready: jobs that get what they need from the limits of their trees (p_trees), and their locks (p_locks); see limit_take_trees and job_lock. p_first: this claim has admitted nothing before. Internal.';

create or replace function coordinator.job_claim(
  p_project text, p_agent uuid, p_limit integer default 1, p_queues text[] default null, p_types text[] default null, p_request_id uuid default null,
  p_finished uuid[] default '{}', p_fences bigint[] default '{}', p_results jsonb default '[]')
returns setof coordinator.job_grant
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz;
  v_agent   record;
  v_types   text[];
  v_classes bigint[];
  v_plain   bigint[];
  v_alone   text[]; -- classes to claim from one by one or by common limits: fair, limited or being rearranged
  v_slots   jsonb;
  v_charged bigint[]; -- classes whose jobs are charged to budgets
  v_keyed   bigint[]; -- classes with a limit per key
  v_first   integer;
  v_ids     uuid[];
  v_beyond  uuid[];
  v_done    uuid[];
  v_left    integer := p_limit;
  v_want    integer;
  v_count   integer;
  v_floors  jsonb := coordinator.job_floors();
  v_short   boolean;
  v_locks   boolean; -- whether jobs of some of the classes have locks
  v_trees   boolean; -- whether some trees have limits, or are being cancelled
  v_timed   bigint[]; -- rates and budgets per key
  v_treed   jsonb := '{}'; -- jobs of this round that count against limits of their trees, with the slot of each
  v_kept    record;
  v_owned   uuid[] := '{}'; -- jobs of this round that have acquired their locks
  v_fences  bigint[] := '{}';
  v_tokens  jsonb[] := '{}';
  v_parked  integer := 0; -- jobs that could not acquire their locks
  v_again   boolean := false; -- if so, whether there may be other jobs to try
begin
  -- The end of an agent waits for this lock, so it leaves no attempt behind.
  select a.name, a.job_types, a.labels into v_agent from coordinator.agents a where a.id = p_agent and a.project_id = v_project for key share;
  if not found then
    perform coordinator.agent_missing(p_project, p_agent);
  end if;
  perform coordinator.job_check_claim(v_agent.name, v_agent.job_types, p_limit, p_queues, p_types, p_finished, p_fences, p_results);
  perform coordinator.check_isolation('jobs are claimed');
  perform coordinator.advisory_enter(coordinator.limit_key(v_project), true);
  v_now := coordinator.now_utc(); -- after waiting for the locks, because deadlines begin now

  if p_finished <> '{}' then
    v_done := coordinator.job_finish(p_agent, v_agent.name, p_finished, p_fences, array(select r from jsonb_array_elements(p_results) r), v_now);
    if cardinality(v_done) is distinct from cardinality(p_finished) then
      return query
        select u.id, u.fence, null::text, null::text, null::text, null::integer, null::jsonb, null::jsonb, null::timestamptz, true, null::integer, null::jsonb, null::text
        from unnest(p_finished, p_fences) u (id, fence)
        where (u.id = any (v_done)) is not true and not coordinator.job_finished(v_project, u.id, u.fence);
    end if;
  end if;
  if p_request_id is not null then
    return query
      select j.id, r.fence, j.type, j.queue, j.key, r.attempt::integer, j.payload, j.checkpoint, r.deadline_at, false,
             coordinator.job_step_count(j.id), r.tokens, j.traceparent
      from coordinator.jobs_running r join coordinator.jobs_open j on j.id = r.id
      where r.agent_id = p_agent and r.request_id = p_request_id order by r.fence;
    if found then
      return;
    end if;
  end if;

  select exists (select from coordinator.job_limits l where l.project_id = v_project and l.tree is not null)
           or exists (select from coordinator.job_changes c where c.project_id = v_project),
         array(select l.id from coordinator.job_limits l where l.project_id = v_project and l.per_key and l.kind <> 'slots') into v_trees, v_timed;
  if v_timed <> '{}' then
    perform coordinator.limit_unpark_due(v_timed, v_now);
  end if;
  if v_trees and p_limit > 0 then
    perform coordinator.limit_wake_rates(v_project, v_now);
  end if;
  while v_left > 0 loop
    select max(g.classes::text) filter (where g.plain), array_agg(g.classes::text) filter (where not g.plain), coalesce(bool_or(g.locks), false)
    into v_plain, v_alone, v_locks from (
      select array_agg(c.id) as classes, not q.fair and c.limit_ids = '{}' and not c.arranging as plain, bool_or(c.locks) as locks
      from coordinator.job_classes c join coordinator.queues q on q.project_id = c.project_id and q.name = c.queue
      where c.project_id = v_project and c.type = any (v_agent.job_types) and (p_types is null or c.type = any (p_types))
        and (p_queues is null or c.queue = any (p_queues)) and c.labels <@ v_agent.labels and q.paused_at is null
        and case when q.fair or c.keyed or c.arranging then exists (select from coordinator.job_permits p where p.class_id = c.id
                                                                                   and p.turn > coalesce((v_floors ->> ('turn ' || c.id))::bigint, 0))
                                  or v_floors = '{}' and exists (select from coordinator.jobs_ready r where r.class_id = c.id)
                 else exists (select from coordinator.jobs_ready r where r.class_id = c.id and r.lane_id = 0
                   and (r.rank, r.id) > (coalesce((v_floors #>> array[c.id::text, '0'])::bigint, -9223372036854775808), (v_floors #>> array[c.id::text, '1'])::uuid)) end
      group by q.fair, c.limit_ids, c.arranging, case when q.fair or c.keyed or c.arranging then c.id end) g;
    v_first := case when v_alone is null then 0 else nextval('coordinator.job_turns') % (cardinality(v_alone) + 1) end;
    v_slots := case when v_alone is not null then
      coordinator.limit_slots(array(select c from unnest(v_alone) a cross join unnest(a::bigint[]) c)) end;
    if v_charged is null and (v_alone is not null or v_trees) then -- before the limits of trees
      perform coordinator.limit_enter_gauges(v_project, v_agent.job_types);
      v_charged := '{}';
    end if;
    if v_alone is not null then
      select array_agg(c.id) filter (where exists (select from coordinator.job_limits l where l.id = any (c.limit_ids) and l.kind = 'budget')),
             array_agg(c.id) filter (where c.keyed) into v_charged, v_keyed
      from coordinator.job_classes c where c.id in (select k from unnest(v_alone) a cross join unnest(a::bigint[]) k);
      v_charged := coalesce(v_charged, '{}');
    end if;
    v_ids := '{}';
    v_want := greatest(v_left, least(v_parked, 1000)); -- the more jobs cannot acquire their locks, the more are tried at once
    for v_classes in
      select u.classes::bigint[] from unnest(null::text || v_alone) with ordinality u (classes, place)
      order by (u.place + v_first) % (coalesce(cardinality(v_alone), 0) + 1)
    loop
      exit when cardinality(v_ids) >= v_want;
      v_ids := v_ids || case when v_classes is not null then coordinator.limit_pick(v_classes, v_want - cardinality(v_ids), v_floors, v_now, v_ids)
                             when v_plain is not null then coordinator.job_pick(v_plain, v_want - cardinality(v_ids), v_floors) end;
    end loop;
    v_short := cardinality(v_ids) < v_want and v_floors <> '{}';
    v_floors := case when v_short then '{}' else v_floors end;
    continue when v_short and v_ids = '{}';
    exit when v_ids = '{}';
    if v_locks or v_trees then
      v_kept := coordinator.job_admit(v_project, p_project, p_agent, v_agent.name, v_ids, v_left, 1000 - v_parked,
                                      v_parked = 0 and v_left = p_limit, v_trees, v_locks, v_now);
      v_ids := v_kept.picked;
      v_treed := v_kept.slots;
      v_owned := v_kept.owned;
      v_fences := v_kept.fences;
      v_tokens := v_kept.tokens;
      v_parked := v_parked + cardinality(v_kept.waiting);
      v_again := v_kept.waiting <> '{}' and v_kept.rest = '{}';
      if v_alone is not null and v_kept.waiting || v_kept.rest <> '{}' then
        perform coordinator.limit_return(v_kept.waiting || v_kept.rest, v_agent.name, v_now);
      end if;
      if v_kept.rest <> '{}' then
        perform coordinator.job_make_ready(v_kept.rest, v_agent.name, v_now, p_wait => false); -- also wakes other workers, if this claim reaches its limit
        exit when v_ids = '{}';
      end if;
      continue when v_ids = '{}';
    end if;
    perform coordinator.epoch_number('coordinator.job_fences'); -- may begin an epoch, so the fences below exceed all earlier ones
    return query
      with slot as materialized (
        select e.key::bigint as class_id, e.value::bigint[] as limits from jsonb_each_text(v_slots) e),
      open as (
        select j.id, j.class_id, j.type, j.queue, j.key, j.attempts, j.payload, j.checkpoint, j.deadline, j.stall, j.traceparent,
               case when num_nonnulls(j.past, j.retry_of) = 0 then 0 else coordinator.job_step_count(j.id) end as steps,
               row_number() over best as place, sum(
                 -- A small value has about the same size as text; the size of a larger one is measured.
                 case when pg_column_size(j.payload) < 130 then pg_column_size(j.payload) else octet_length(j.payload::text) end
                 + coalesce(octet_length(j.checkpoint::text), 0)) over best as bytes
        from coordinator.jobs_open j
        where j.id = any (v_ids) and (j.start_by is null or j.start_by > v_now) and j.paused is null
        window best as (order by j.priority desc, j.scheduled_at, j.id rows unbounded preceding)),
      job as materialized (
        select j.id, coalesce(case when v_locks then v_fences[array_position(v_owned, j.id)] end, nextval('coordinator.job_fences')) as fence,
               case when v_locks then v_tokens[array_position(v_owned, j.id)] end as tokens, j.class_id, j.type, j.queue, j.key, j.attempts + 1 as attempt,
               j.payload, j.checkpoint, v_now + coalesce(j.deadline, interval '1 day') as deadline_at, v_now + j.stall as stall_at, j.steps, j.traceparent
        from open j where j.place = 1 or j.bytes <= 1048576),
      running as (
        insert into coordinator.jobs_running (id, fence, agent_id, class_id, attempt, started_at, deadline_at, stall_at, request_id, checkpoint, tokens, slots, charged, key_hash)
        select j.id, j.fence, p_agent, j.class_id, j.attempt, v_now, j.deadline_at, j.stall_at, p_request_id, j.checkpoint, j.tokens,
               case when v_trees then
                      nullif(array_remove((select s.limits from slot s where s.class_id = j.class_id) || (v_treed ->> j.id::text)::bigint, null), '{}')
                    when v_slots is not null then (select s.limits from slot s where s.class_id = j.class_id) end,
               coalesce(j.class_id = any (v_charged), false) or v_trees and v_treed <> '{}' and coalesce((select true from coordinator.job_charges g where g.job_id = j.id limit 1), false),
               case when j.class_id = any (v_keyed) then coordinator.limit_hash(v_project, j.key) end
        from job j),
      told as (
        select coordinator.job_tell('job.started', v_project, p_project, t.queue, v_agent.name, v_now, t.ids, jsonb_build_object('agent_id', p_agent))
        from (select j.queue, array_agg(j.id) as ids from job j group by 1 order by 1) t)
      select j.id, j.fence, j.type, j.queue, j.key, j.attempt, j.payload, j.checkpoint, j.deadline_at, false, j.steps, j.tokens, j.traceparent
      from (select count(*) from told) t, job j; -- in the order of their places, in which job is read and stored
    get diagnostics v_count = row_count;
    v_left := v_left - v_count;
    continue when v_count = cardinality(v_ids) and (v_short or v_again);
    exit when v_count = cardinality(v_ids);
    -- Past start_by: job_expire ends these jobs.
    insert into coordinator.jobs_later (id, class_id, due_at)
    select j.id, j.class_id, j.start_by from coordinator.jobs_open j where j.id = any (v_ids) and j.start_by <= v_now;
    -- Paused while this claim looked for them.
    v_beyond := array(select j.id from coordinator.jobs_open j where j.id = any (v_ids) and j.paused is not null and (j.start_by is null or j.start_by > v_now));
    if v_beyond <> '{}' then
      perform coordinator.job_make_waiting(v_beyond, 'tree', null, v_agent.name, v_now);
    end if;
    -- Beyond the size of a response: these jobs return to their places, and the claim ends.
    v_beyond := array(select i from unnest(v_ids) i where not exists (select from coordinator.jobs_running r where r.id = i)
                                                      and not exists (select from coordinator.jobs_later l where l.id = i) and i <> all (v_beyond));
    if v_beyond <> '{}' then
      if v_owned && v_beyond then
        perform coordinator.job_unlock(array(
          select jsonb_populate_record(null::coordinator.jobs_running, jsonb_build_object('id', o.id, 'fence', o.fence, 'agent_id', p_agent))
          from unnest(v_owned, v_fences) o (id, fence) where o.id = any (v_beyond)), v_agent.name);
      end if;
      perform coordinator.job_make_ready(v_beyond, v_agent.name, v_now, p_wait => false);
    end if;
    if v_alone is not null then
      perform coordinator.limit_return(array(select i from unnest(v_ids) i where not exists (select from coordinator.jobs_running r where r.id = i)),
                                       v_agent.name, v_now);
    end if;
    perform coordinator.limit_return_trees(v_treed, array(
      select i from unnest(v_ids) i where not exists (select from coordinator.jobs_running r where r.id = i)), v_agent.name, v_now);
    exit when v_beyond <> '{}';
  end loop;
end
$$;
comment on function coordinator.job_claim(text, uuid, integer, text[], text[], uuid, uuid[], bigint[], jsonb) is
  'Claim up to p_limit jobs for a worker, in order of rank: jobs of its job_types (p_types: only these; p_queues: only from these) whose labels it has. The same call completes the jobs p_finished under p_fences with the array p_results, and returns those that the worker no longer had as stale. p_request_id: a repeated call with the same id returns the same jobs while the worker has them. p_limit 0: only finish. The call returns fewer jobs if their payloads and checkpoints exceed 1 MB as text. ZC105: the agent has no job_types.';

create or replace function coordinator.job_check_claim(
  p_name text, p_job_types text[], p_limit integer, p_queues text[], p_types text[], p_finished uuid[], p_fences bigint[], p_results jsonb)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fault text;
begin
  if p_limit is null or p_limit not between 0 and 1000 then
    raise exception using errcode = 'ZC104', message = format('a limit of %s is out of range', coalesce(p_limit::text, 'null')), hint = 'Give 0 to 1000.';
  elsif p_job_types = '{}' and p_limit > 0 then
    raise exception using errcode = 'ZC105', message = format('agent "%s" has no job_types', p_name),
      hint = 'Register a worker with the types of jobs that it can run: "coordinator agent register NAME --job-type TYPE".';
  elsif p_queues is not null or p_types is not null then
    perform coordinator.check_list('the queues', p_queues);
    perform coordinator.check_list('the types', p_types);
  end if;
  if p_finished = '{}' and p_fences = '{}' and p_results = '[]' then
    return;
  elsif p_finished is null or p_fences is null or p_results is null or jsonb_typeof(p_results) <> 'array'
     or array_ndims(p_finished) > 1 or array_ndims(p_fences) > 1 or array_lower(p_finished, 1) <> 1 or array_lower(p_fences, 1) <> 1 then
    raise exception using errcode = 'ZC103', message = 'the finished jobs are not plain lists', hint = 'Give lists of ids, of fences and of results.';
  elsif cardinality(p_finished) <> cardinality(p_fences) or cardinality(p_finished) <> jsonb_array_length(p_results) then
    raise exception using errcode = 'ZC105',
      message = format('%s finished jobs, %s fences and %s results', cardinality(p_finished), cardinality(p_fences), jsonb_array_length(p_results)),
      hint = 'Give a fence and a result for each job; null is a result.';
  elsif cardinality(p_finished) > 1000 then
    raise exception using errcode = 'ZC102', message = format('%s jobs are finished in one call', cardinality(p_finished)), hint = 'Give at most 1000.';
  end if;
  select coordinator.json_fault(r) into v_fault from jsonb_array_elements(p_results) r
  where case when pg_column_size(r) < 130 then octet_length(r::text) >= 130 else true end and coordinator.json_fault(r) is not null limit 1;
  perform coordinator.json_refuse('a result', v_fault);
end
$$;
comment on function coordinator.job_check_claim(text, text[], integer, text[], text[], uuid[], bigint[], jsonb) is
  'Reject invalid parameters of a claim. Internal.';
