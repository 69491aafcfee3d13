-- Locks: leases with fencing tokens over names, paths, directories, globs and slots (lock_resource.sql), and the queue of
-- those who wait for them (lock_wait.sql).
--
-- Guarantees
--   A row of locks is the truth: its holder has the resource until expires_at by the database's clock. No two agents hold
--   what overlaps, unless both share. Each grant has a fencing token that is greater than that of any grant before;
--   renew, release and a given break compare holder, token and expiry, and a stale one changes nothing and says who holds
--   it now. assert_fence keeps the row to the end of the caller's transaction: nobody takes the lock over before that
--   commits. Strict FIFO: nobody, not even who would share or only tries, gets what an earlier ticket waits for. All of a
--   call's resources are granted together, with one token, or none. An agent holds a resource at most once: acquiring
--   again renews what it holds, with the same token; from shared to exclusive it is a new grant, possible when nobody
--   else shares or waits. An agent never conflicts with itself.
--   An expired lock is free for the next caller at once; the loop (lock_expire) only tells so, and serves who waits.
--   A lock-delay (delay) keeps it from everybody for a while after it expired, was broken or its agent ended.
--   A request id makes acquire repeatable: asked again, it finds its ticket or its locks, as long as these stand.
--
-- How. Four things are taken, always in this order, so that no two callers wait for each other:
--   1. the agent's row, for key share: an agent that ends waits for it, and leaves no lock behind;
--   2. the keys: transaction-level advisory locks, exclusive on each resource's own path (of a glob: its literal
--      directory), shared on all directories above, in the order of the texts, so root first. What overlaps meets in a
--      key that one of them has exclusively; what does not overlap does not wait. More than 200 keys become the root's.
--   3. rows of locks: what is expired is deleted, which waits for a guarded transaction that is still open;
--   4. the queue: one advisory lock for each project that has waiters, for everything that changes its queue. An
--      uncontended acquire or release never takes it, and whoever has it waits for no row.
-- Acquire and release look at their own resources under the keys. Whoever hands a lock on has the queue and no keys of
-- what the waiter wants: it needs none, since a ticket was enqueued under its keys and keeps every newcomer away. That is
-- why acquire looks for tickets before it looks for holders (a ticket may become a holder in between, not the reverse),
-- and goes through the queue even for a ticket that timed out.
-- A waiter is not kept in SQL, where it would hold a snapshot: acquire with p_wait gives a ticket, and the waiter asks
-- with lock_poll when an event lock.acquired with its ticket comes, and now and then. A lock that was handed on must be
-- asked for within 10 seconds. The event comes through the outbox like every other; nothing is notified from here: from
-- the call of release to the event at the waiter's LISTEN it took 5 ms (p50), 10 ms (p90), 20 ms (p99) on two busy cores.
--
-- Cost, there: acquire and release of one path together 1.6 to 1.8 times two bare single-row writes; a million held locks
-- in the project make an acquire 1.3 times as dear (server CPU).
--
-- Deliberately not: blocking in SQL, session-level advisory locks, an event for each renewal, memory of requests whose
-- locks are gone, locks that span projects.

create or replace view coordinator.lock_holders with (security_barrier) as
  select p.name as project, l.resource, l.kind, l.mode, l.slots, case when l.slots is not null then l.slot end as slot, l.agent_id,
         l.agent_name as agent, l.fencing_token, l.acquired_at, l.expires_at
  from coordinator.locks l join coordinator.projects p on p.id = l.project_id
  where l.expires_at > coordinator.now_utc()
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.lock_holders               is 'Who holds what, now.';
comment on column coordinator.lock_holders.project       is 'Name of the project.';
comment on column coordinator.lock_holders.resource      is 'What is locked: name:deploy, src/a.py, src/ or src/**/*.py.';
comment on column coordinator.lock_holders.kind          is 'name, path, directory or glob.';
comment on column coordinator.lock_holders.mode          is 'exclusive or shared.';
comment on column coordinator.lock_holders.slots         is 'How many may hold a counted lock; null for others.';
comment on column coordinator.lock_holders.slot          is 'Which of the slots it is, from 1; null for others.';
comment on column coordinator.lock_holders.agent_id      is 'The holder, see agents.';
comment on column coordinator.lock_holders.agent         is 'The holder''s name.';
comment on column coordinator.lock_holders.fencing_token is 'Greater with each grant.';
comment on column coordinator.lock_holders.acquired_at   is 'When it was granted.';
comment on column coordinator.lock_holders.expires_at    is 'The holder has it until then.';

create or replace view coordinator.file_locks as
  select regexp_replace(l.resource, '^path:', '') as path, l.agent_id, l.mode as lock_type, l.acquired_at as created_at, l.expires_at, l.project
  from coordinator.lock_holders l where l.kind <> 'name';
comment on view   coordinator.file_locks            is 'Paths, directories and globs that are locked now.';
comment on column coordinator.file_locks.path       is 'A path, a directory with / at its end, or a glob.';
comment on column coordinator.file_locks.agent_id   is 'The holder, see agents.';
comment on column coordinator.file_locks.lock_type  is 'exclusive or shared.';
comment on column coordinator.file_locks.created_at is 'When it was granted.';
comment on column coordinator.file_locks.expires_at is 'The holder has it until then.';
comment on column coordinator.file_locks.project    is 'Name of the project.';

create or replace function coordinator.lock_enter(p_project_id bigint, p_resources coordinator.lock_resource[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_salt  text := 'coordinator.lock:' || p_project_id || ':';
  v_paths text[];
  v_names text[];
  v_text  text;
  v_key   record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'ZC105', message = 'locks change in read committed transactions only',
      hint = 'A snapshot from before the wait would not show who was quicker; assert_fence works at every level.';
  end if;
  if cardinality(p_resources) = 1 then
    foreach v_text in array p_resources[1].above loop
      perform pg_advisory_xact_lock_shared(hashtextextended(v_salt || v_text, 0));
    end loop;
    perform pg_advisory_xact_lock(hashtextextended(v_salt || p_resources[1].path, 0));
    return;
  end if;
  for v_key in
    with wanted as (
      select r.path collate "C" as path, true as own, r.kind from unnest(p_resources) r
      union all
      select a, false, r.kind from unnest(p_resources) r, unnest(r.above) a
    ), counted as (
      select count(distinct path) > 200 as many from wanted where kind <> 'name'
    )
    select case when many and kind <> 'name' then '' else path end as path, bool_or(own or many) as own
    from wanted, counted group by 1 order by 1
  loop
    if v_key.own then
      perform pg_advisory_xact_lock(hashtextextended(v_salt || v_key.path, 0));
    else
      perform pg_advisory_xact_lock_shared(hashtextextended(v_salt || v_key.path, 0));
    end if;
  end loop;
end
$$;
comment on function coordinator.lock_enter(bigint, coordinator.lock_resource[]) is
  'Take the advisory locks under which the holders of resources change, to the end of the transaction. Internal.';

create or replace function coordinator.lock_parse_all(p_resources text[]) returns coordinator.lock_resource[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_texts text[];
  v_all   coordinator.lock_resource[];
begin
  if coalesce(cardinality(p_resources), 0) = 0 then
    raise exception using errcode = 'ZC101', message = 'no resource is given', hint = 'Give at least one, such as src/app.py.';
  elsif cardinality(p_resources) > 100 then
    raise exception using errcode = 'ZC102',
      message = format('%s resources in one call; at most 100 are allowed', cardinality(p_resources)),
      hint = 'Lock a directory or a glob that holds them.';
  elsif cardinality(p_resources) = 1 then
    return array[coordinator.lock_parse(p_resources[1])];
  end if;
  -- One of each, in one order for everybody.
  select array_agg(r order by (r).resource collate "C") into v_all
  from (select distinct on ((r).resource) r
        from (select coordinator.lock_parse(t) as r from unnest(p_resources) t offset 0) parsed) one;
  return v_all;
end
$$;
comment on function coordinator.lock_parse_all(text[]) is
  'Parse the resources of one call: 1 to 100, each once, in byte order. Internal.';

create or replace function coordinator.lock_blockers(
  p_project_id bigint, p_agent uuid, p_ticket bigint, p_resource coordinator.lock_resource, p_mode text, p_slots integer)
returns table (resource text, agent_id uuid, agent_name text, mode text, fencing_token bigint, expires_at timestamptz, ticket bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_now timestamptz := coordinator.now_utc();
begin
  if exists (select from coordinator.locks l
             where l.project_id = p_project_id and l.resource = p_resource.resource and l.agent_id is not distinct from p_agent
               and l.expires_at > v_now and (l.mode = 'exclusive' or p_mode = 'shared')) then
    return; -- it holds it
  end if;
  return query
    select l.resource, l.agent_id, l.agent_name, l.mode, l.fencing_token, l.free_at, null::bigint
    from (
      select h.*, count(*) over () as taken from coordinator.lock_held_overlapping(p_project_id, p_resource) h
      where h.free_at > v_now and (h.agent_id <> p_agent or h.expires_at <= v_now)) l
    where (p_mode = 'exclusive' or l.mode = 'exclusive')
      and (p_slots is null or l.slots is distinct from p_slots or l.taken >= p_slots);
  return query
    select w.resource, w.agent_id, w.agent_name, w.mode, null::bigint, w.expires_at, w.ticket
    from coordinator.lock_waits_overlapping(p_project_id, p_resource) w
    where (p_ticket is null or w.ticket < p_ticket) and w.agent_id <> p_agent and w.expires_at > v_now
      and (p_mode = 'exclusive' or w.mode = 'exclusive');
end
$$;
comment on function coordinator.lock_blockers(bigint, uuid, bigint, coordinator.lock_resource, text, integer) is
  'What keeps an agent from a resource: others'' locks that are not free yet, and tickets before p_ticket (null: all). Internal.';

create or replace function coordinator.lock_refuse(
  p_project_id bigint, p_agent uuid, p_ticket bigint, p_resources coordinator.lock_resource[], p_mode text, p_slots integer) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_b record;
begin
  select r.resource as wanted, b.* into v_b
  from unnest(p_resources) r
  cross join lateral coordinator.lock_blockers(p_project_id, p_agent, p_ticket, r, p_mode, p_slots) b
  order by b.ticket nulls first, r.resource, b.expires_at desc limit 1;
  if not found then
    raise exception using errcode = 'ZC310', message = 'the lock was not free a moment ago', hint = 'Try again.';
  end if;
  raise exception using errcode = 'ZC310',
    message = case when v_b.ticket is null
      then format('"%s" is locked by agent "%s" (%s), %s%s, token %s, until %s', v_b.wanted, v_b.agent_name, v_b.agent_id, v_b.mode,
                  case when v_b.resource <> v_b.wanted then format(', on "%s"', v_b.resource) else '' end, v_b.fencing_token,
                  to_char(v_b.expires_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'))
      else format('"%s" is waited for by agent "%s" (%s), %s%s, ticket %s', v_b.wanted, v_b.agent_name, v_b.agent_id, v_b.mode,
                  case when v_b.resource <> v_b.wanted then format(', on "%s"', v_b.resource) else '' end, v_b.ticket) end,
    detail = jsonb_build_object('resource', v_b.wanted, 'locked', v_b.resource, 'agent_id', v_b.agent_id, 'agent', v_b.agent_name,
      'mode', v_b.mode, 'fencing_token', v_b.fencing_token, 'expires_at', v_b.expires_at, 'ticket', v_b.ticket)::text,
    hint = format('Wait for it (--wait 30s), or ask for it: coordinator directive send "please release %s" --to %s', v_b.resource, v_b.agent_name);
end
$$;
comment on function coordinator.lock_refuse(bigint, uuid, bigint, coordinator.lock_resource[], text, integer) is
  'Raise ZC310, naming who is in the way. Internal.';

create or replace function coordinator.lock_expire_one(
  p_project_id bigint, p_project text, p_resource text, p_slot bigint, p_now timestamptz) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_lock coordinator.locks;
begin
  delete from coordinator.locks where project_id = p_project_id and resource = p_resource and slot = p_slot and free_at <= p_now
  returning * into v_lock;
  if not found then
    return false;
  end if;
  if v_lock.ended_at is null then
    perform coordinator.outbox_append('lock.expired', p_project, p_resource, 'coordinator', p_now,
      jsonb_build_object('agent_id', v_lock.agent_id, 'agent', v_lock.agent_name, 'fencing_token', v_lock.fencing_token,
                         'expires_at', v_lock.expires_at));
  end if;
  return true;
end
$$;
comment on function coordinator.lock_expire_one(bigint, text, text, bigint, timestamptz) is
  'Take away one expired lock and tell so; false if it is gone or was renewed. Waits for a guarded transaction. Internal.';

create or replace function coordinator.lock_write(
  p_project text, p_new coordinator.locks, p_own boolean) returns coordinator.locks
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_lock coordinator.locks;
begin
  if p_own then
    update coordinator.locks
    set expires_at = greatest(expires_at, p_new.expires_at), free_at = greatest(expires_at, p_new.expires_at) + p_new.delay,
        ttl = p_new.ttl, delay = p_new.delay, request_id = coalesce(p_new.request_id, request_id), claimed = true
    where project_id = p_new.project_id and resource = p_new.resource and agent_id is not distinct from p_new.agent_id
      and expires_at > p_new.acquired_at and (mode = 'exclusive' or p_new.mode = 'shared')
    returning * into v_lock;
    if found then
      return v_lock;
    end if;
    delete from coordinator.locks -- shared, to be exclusive
    where project_id = p_new.project_id and resource = p_new.resource and agent_id is not distinct from p_new.agent_id and expires_at > p_new.acquired_at;
  end if;
  p_new.slot := case
    when p_new.slots is not null then (
      select min(s) from generate_series(1, p_new.slots) s
      where s not in (select slot from coordinator.locks where project_id = p_new.project_id and resource = p_new.resource))
    when p_new.mode = 'exclusive' then 0 else - p_new.fencing_token end;
  insert into coordinator.locks values (p_new.*);
  perform coordinator.outbox_append('lock.acquired', p_project, p_new.resource, p_new.agent_name, p_new.acquired_at,
    jsonb_build_object('agent_id', p_new.agent_id, 'mode', p_new.mode, 'slot', case when p_new.slots is not null then p_new.slot end,
                       'fencing_token', p_new.fencing_token, 'expires_at', p_new.expires_at, 'ticket', p_new.ticket));
  return p_new;
end
$$;
comment on function coordinator.lock_write(text, coordinator.locks, boolean) is
  'Grant a lock, or renew it where p_own and the agent holds it. The caller made sure that it may. Internal.';

create or replace function coordinator.lock_acquire(
  p_project text, p_resources text[], p_agent uuid, p_shared boolean default false, p_slots integer default null,
  p_ttl interval default '30 seconds', p_wait interval default null, p_delay interval default '0', p_request_id uuid default null)
returns table (resource text, mode text, slot integer, fencing_token bigint, acquired_at timestamptz, expires_at timestamptz,
               ticket bigint, granted boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans are made while the tables are small, and must do when they are not
set plan_cache_mode = force_generic_plan -- an array's length is no reason to plan anew at each call
as $$
#variable_conflict use_column
declare
  v_all     coordinator.lock_resource[];
  v_r       coordinator.lock_resource;
  v_agent   record;
  v_mode    text := case when p_shared then 'shared' else 'exclusive' end;
  v_now     timestamptz;
  v_row     coordinator.locks;
  v_lock    coordinator.locks;
  v_own     boolean[];
  v_taken   integer;
  v_queue   boolean := false;
  v_blocked boolean;
  v_expired coordinator.locks[];
  v_again   boolean;
  v_ticket  bigint;
  v_token   bigint;
begin
  v_all := coordinator.lock_parse_all(p_resources);
  if p_ttl is null or p_ttl not between interval '1 second' and interval '1 day' then
    perform coordinator.check_ttl(p_ttl, 86400);
  end if;
  if p_slots is not null or p_delay <> interval '0' or p_delay is null or p_wait is not null then
    perform coordinator.lock_check_options(v_all, p_shared, p_slots, p_wait, p_delay);
  end if;
  perform coordinator.project_check(p_project);
  select a.name, a.project_id into v_agent
  from coordinator.agents a join coordinator.projects p on p.id = a.project_id
  where a.id = p_agent and p.name = p_project for key share of a;
  if not found then
    perform coordinator.project_id(p_project);
    raise exception using errcode = 'ZC202', message = format('there is no agent %s in project "%s"', p_agent, p_project),
      hint = 'It was reaped or deregistered; register again.';
  end if;
  perform coordinator.lock_enter(v_agent.project_id, v_all);

  -- Nearly always nothing is in the way of one path or name: one look for tickets and holders, one row.
  if cardinality(v_all) = 1 and p_slots is null then
    v_r := v_all[1];
    if v_r.kind in ('path', 'name') and not exists (
         select from unnest(v_r.covered_by) c, lateral ( -- one by one: before PostgreSQL 17 a list may be read as a filter
           select from coordinator.lock_waits w where w.project_id = v_agent.project_id and w.resource = c limit 1) x
         union all
         select from unnest(v_r.above || v_r.path) c, lateral (
           select from coordinator.lock_waits w
           where w.project_id + 0 = v_agent.project_id and w.kind = 'glob' and w.prefix = c limit 1) x
         union all
         select from unnest(v_r.covered_by) c, lateral (
           select from coordinator.locks l where l.project_id = v_agent.project_id and l.resource = c limit 1) x
         union all
         select from unnest(v_r.above || v_r.path) c, lateral (
           select from coordinator.locks l
           where l.project_id + 0 = v_agent.project_id and l.kind = 'glob' and l.prefix = c limit 1) x) then
      v_token := nextval('coordinator.lock_tokens');
      v_now := coordinator.now_utc();
      return query
        insert into coordinator.locks as l (project_id, resource, slot, kind, mode, agent_id, agent_name, fencing_token, ttl, delay, request_id,
                                            acquired_at, expires_at, free_at)
        values (v_agent.project_id, v_r.resource, case when p_shared then - v_token else 0 end, v_r.kind, v_mode, p_agent, v_agent.name,
                v_token, p_ttl, p_delay, p_request_id, v_now, v_now + p_ttl, v_now + p_ttl + p_delay)
        returning l.resource, l.mode, null::integer, l.fencing_token, l.acquired_at, l.expires_at, null::bigint, true;
      perform coordinator.outbox_append('lock.acquired', p_project, v_r.resource, v_agent.name, v_now,
        jsonb_build_object('agent_id', p_agent, 'mode', v_mode, 'slot', null, 'fencing_token', v_token, 'expires_at', v_now + p_ttl,
                           'ticket', null));
      return;
    end if;
  end if;

  if p_request_id is not null then
    select w.ticket into v_ticket from coordinator.lock_waits w where w.agent_id = p_agent and w.request_id = p_request_id limit 1;
    if found then
      return query select * from coordinator.lock_poll(p_project, v_ticket, p_agent);
      return;
    end if;
  end if;

  -- Tickets before holders: see above.
  if exists (select from coordinator.lock_waits w where w.project_id = v_agent.project_id) then
    v_queue := exists (
      select from unnest(v_all) r
      where not exists (
              select from coordinator.locks l
              where l.project_id = v_agent.project_id and l.resource = r.resource and l.agent_id is not distinct from p_agent
                and l.expires_at > coordinator.now_utc() and (p_shared or l.mode = 'exclusive'))
        and exists (
              select from coordinator.lock_waits_overlapping(v_agent.project_id, r) w
              where w.agent_id <> p_agent and (not p_shared or w.mode = 'exclusive')));
  end if;

  loop
    v_now := coordinator.now_utc();
    v_own := '{}';
    v_expired := '{}';
    v_blocked := false;
    foreach v_r in array v_all loop
      v_taken := 0;
      v_own := v_own || false;
      for v_lock in select * from coordinator.lock_held_overlapping(v_agent.project_id, v_r) loop
        if v_lock.agent_id = p_agent and v_lock.expires_at > v_now then
          if v_lock.resource = v_r.resource then
            v_own[cardinality(v_own)] := true;
            if v_lock.slots is distinct from p_slots then
              perform coordinator.lock_refuse_slots(v_lock.resource, v_lock.slots, p_slots);
            end if;
          end if;
        elsif p_shared and v_lock.mode = 'shared' then
          null;
        elsif v_lock.free_at <= v_now then
          v_expired := v_expired || v_lock;
        elsif v_lock.slots is distinct from p_slots and v_r.kind = 'name' then
          perform coordinator.lock_refuse_slots(v_lock.resource, v_lock.slots, p_slots);
        else
          v_taken := v_taken + 1;
        end if;
      end loop;
      v_blocked := v_blocked or v_taken >= coalesce(p_slots, 1) and not (p_slots is not null and v_own[cardinality(v_own)]);
    end loop;
    if v_blocked or v_queue then
      if v_blocked and p_wait is null then
        perform coordinator.lock_refuse(v_agent.project_id, p_agent, null, v_all, v_mode, p_slots);
      end if;
      v_ticket := coordinator.lock_enqueue(v_agent.project_id, p_project, p_agent, v_agent.name, v_all, v_mode, p_slots, p_ttl,
                                           p_wait, p_delay, p_request_id);
      return query select * from coordinator.lock_ticket(v_agent.project_id, v_ticket, p_agent);
      return;
    end if;
    v_again := false;
    foreach v_lock in array v_expired loop
      if not coordinator.lock_expire_one(v_lock.project_id, p_project, v_lock.resource, v_lock.slot, v_now) then
        v_again := true; -- renewed or taken away since
      end if;
    end loop;
    exit when not v_again;
  end loop;

  v_lock := null;
  v_lock.project_id := v_agent.project_id;
  v_lock.mode := v_mode;
  v_lock.slots := p_slots;
  v_lock.agent_id := p_agent;
  v_lock.agent_name := v_agent.name;
  v_lock.fencing_token := nextval('coordinator.lock_tokens');
  v_lock.ttl := p_ttl;
  v_lock.delay := p_delay;
  v_lock.request_id := p_request_id;
  v_lock.claimed := true;
  v_lock.acquired_at := v_now;
  v_lock.expires_at := v_now + p_ttl;
  v_lock.free_at := v_lock.expires_at + p_delay;
  for v_i in 1 .. cardinality(v_all) loop
    v_lock.resource := v_all[v_i].resource;
    v_lock.kind := v_all[v_i].kind;
    v_lock.prefix := case when v_lock.kind = 'glob' then v_all[v_i].path end;
    v_lock.pattern := v_all[v_i].pattern;
    v_row := coordinator.lock_write(p_project, v_lock, v_own[v_i]);
    resource := v_row.resource;
    mode := v_row.mode;
    slot := case when v_row.slots is not null then v_row.slot end;
    fencing_token := v_row.fencing_token;
    acquired_at := v_row.acquired_at;
    expires_at := v_row.expires_at;
    ticket := v_row.ticket;
    granted := true;
    return next;
  end loop;
end
$$;
comment on function coordinator.lock_acquire(text, text[], uuid, boolean, integer, interval, interval, interval, uuid) is
  'Lock resources for an agent: all, with one token, or none. p_shared: with others that share. p_slots: one of so many places of a name. p_wait: if they are not free, enqueue for so long at the most, and answer with a ticket and granted false: ask again with lock_poll. Without p_wait ZC310 names who is in the way. ZC313: waiting would close a circle. What the agent holds already is renewed. p_delay: nobody gets them for so long after they expired, were broken or the agent ended. p_request_id: asked again with it, the answer is the same.';

create or replace function coordinator.lock_check_options(
  p_resources coordinator.lock_resource[], p_shared boolean, p_slots integer, p_wait interval, p_delay interval) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_slots is not null then
    if p_slots not between 1 and 10000 then
      raise exception using errcode = 'ZC104', message = format('%s slots are out of range', p_slots), hint = 'There can be 1 to 10000.';
    elsif p_shared then
      raise exception using errcode = 'ZC105', message = 'a lock with slots cannot be shared', hint = 'Give slots or say shared, not both.';
    elsif exists (select from unnest(p_resources) r where r.kind <> 'name') then
      raise exception using errcode = 'ZC105', message = 'only names have slots', hint = 'Write it like name:gpu.';
    end if;
  end if;
  if p_wait is not null then
    perform coordinator.check_ttl(p_wait, 86400);
  end if;
  if p_delay is null or p_delay not between interval '0' and interval '1 hour' then
    raise exception using errcode = 'ZC104', message = format('a lock-delay of %s is out of range', coalesce(p_delay::text, 'null')),
      hint = 'It can be 0 seconds to 1 hour.';
  end if;
end
$$;
comment on function coordinator.lock_check_options(coordinator.lock_resource[], boolean, integer, interval, interval) is
  'Refuse slots, waits and delays that cannot be (ZC104, ZC105). Internal.';

create or replace function coordinator.lock_refuse_slots(p_resource text, p_present integer, p_slots integer) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'ZC314',
    message = case when p_present is null then format('"%s" is held as a lock without slots, not with %s', p_resource, p_slots)
                   when p_slots is null then format('"%s" is held as a lock with %s slots', p_resource, p_present)
                   else format('"%s" is held as a lock with %s slots, not %s', p_resource, p_present, p_slots) end,
    detail = jsonb_build_object('resource', p_resource, 'slots', p_present)::text,
    hint = 'All who hold or wait for it must say the same number of slots.';
end
$$;
comment on function coordinator.lock_refuse_slots(text, integer, integer) is
  'Raise ZC314: others say another number of slots. Internal.';
