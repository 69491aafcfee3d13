-- Locks: leases with fencing tokens over names, paths, directories, globs and slots (resource.sql), how they are acquired
-- (acquire.sql), held and released (hold.sql), and the queue of those who wait for them (queue.sql, wait.sql).
--
-- Guarantees
--   A row of locks is the truth: its holder has the resource until expires_at by the database's clock. The holder is an owner: an
--   agent, or what it names below itself, such as a task (session) and a part of it (session/subagent). No two owners hold
--   overlapping resources, unless both share, or one is above the other and held its own first. An agent is above its owners, and
--   all of them end with it. A slot is never used by two owners. Each grant has a fencing token greater than that of any earlier grant,
--   even of one that a fail-over lost (epoch.sql). Renew,
--   release and break compare holder, token and expiry; a stale one changes nothing and reports the current holder.
--   assert_fence locks the row to the end of the caller's transaction: nobody takes over the lock before that commits.
--   Queues are strictly first-in, first-out: nobody, not even a caller who would share or does not wait, gets what an earlier
--   ticket waits for. The resources of a call are granted together, with one token, or not at all. An owner holds a
--   resource at most once: acquiring it again renews it, with the same token, and a named owner releases it as often as it acquired
--   it. Going from shared to exclusive is a new grant, possible if nobody else shares or waits.
--   A deadlock is a cycle of owners. An owner waits if it has a ticket, or one below or within it, or its agent has one without an owner.
--   An expired lock is free for the next caller at once; the loop (lock_expire) only emits the event and serves waiters.
--   A lock-delay (delay) keeps the resource from everyone for a while after the lock expired, was broken or its agent ended.
--   Acquire, renew and poll extend the life of the agent to cover the lease, so that no lock ends before its time because nobody
--   sent heartbeats. The death of its process still ends it at once.
--   Locks of an attempt of a job have no lease: they last until the attempt ends (job/lock.sql), and their free_at is infinity.
--   A request id makes acquire repeatable: a repetition finds its ticket or its locks, while these exist.
--
-- How it works. Four kinds of locks are taken, always in this order, so that callers do not deadlock:
--   1. the agent's row, for key share: an agent that ends waits for it and leaves no lock behind;
--   2. the keys: transaction-level advisory locks, exclusive on the path of each resource (of a glob: its literal directory),
--      shared on all directories above it, in the order of the texts, so root first. Overlapping resources share a key that one
--      of them takes exclusively; others do not wait for each other. More than 200 keys become the root's;
--   3. rows of locks: expired rows are deleted, which waits for a guarded transaction that is still open;
--   4. the queue: one advisory lock for each project that has waiters, for everything that changes its queue. An uncontended
--      acquire or release never takes it, and its holder waits for no row: lock_claim skips those that others are changing.
-- Acquire and release look at their own resources under the keys. A transaction that hands a lock on holds the queue but no keys
-- of the waiter's resources. It needs none: the ticket was enqueued under its keys and keeps newcomers away. That is why acquire
-- looks for tickets before holders (a ticket may become a holder in between, but not the reverse), and goes through the queue
-- even for a ticket that timed out.
-- A waiter does not wait in SQL, where it would hold a snapshot: acquire with p_wait returns a ticket, and the waiter calls
-- lock_poll when an event lock.granted with its ticket arrives, and now and then. It must claim a lock that was handed to it
-- within 10 seconds. After the ticket's time has passed, lock_poll decides under the queue lock, so ZC401 is final. It waits for that
-- lock for at most one second. While a transaction that holds it stays open, the ticket is reported as waiting.
-- The event goes through the log like every other. From the call of release to the event at the waiter's
-- LISTEN it took 5 ms (p50), 10 ms (p90), 20 ms (p99) on two busy cores.
--
-- Deliberately absent: blocking in SQL, session-level advisory locks, an event for each renewal, a record of requests whose locks
-- are gone, locks across projects.

insert into coordinator.event_types (type, key, data, meaning) values
  ('lock.granted',  'the resource', '{agent_id,owner,mode,slot,fencing_token,expires_at,ticket}', 'A lock was granted: at once, or to a waiting ticket, whose owner must claim it within 10 seconds. Renewals emit no event.'),
  ('lock.waiting',  'the resource', '{agent_id,owner,mode,ticket,expires_at}',                    'An agent began to wait for a lock.'),
  ('lock.released', 'the resource', '{agent_id,owner,fencing_token}',                             'A lock was released.'),
  ('lock.expired',  'the resource', '{agent_id,agent,owner,fencing_token,expires_at}',            'A lock expired. It became free at expires_at plus its lock-delay.'),
  ('lock.broken',   'the resource', '{agent_id,agent,owner,fencing_token,reason}',                'A lock was broken: it was taken from its holder.'),
  ('lock.ended',    'the resource', '{agent_id,agent,owner,fencing_token}',                       'A lock ended with its agent, with its owner''s work (file_leave), or with a job''s attempt.'),
  ('lock.resized',  'the resource', '{slots,before}',                                      'The number of slots of a counted lock was changed.');

insert into coordinator.rights (function, role) values
  ('lock_check',   'reader'),
  ('lock_list',    'reader'),
  ('lock_show',    'reader'),
  ('lock_waiting', 'reader'),
  ('lock_chains', 'reader'),
  ('assert_fence', 'agent'),
  ('lock_acquire', 'agent'),
  ('lock_cancel',  'agent'),
  ('lock_poll',    'agent'),
  ('lock_release', 'agent'),
  ('lock_renew',   'agent'),
  ('lock_break',   'manager'),
  ('lock_resize',  'manager');

insert into coordinator.limits (name, value, unit, meaning) values
  ('lock_resource',  1024,  'bytes',   'Path, glob or name to lock; a path has at most 32 segments.'),
  ('lock_wildcards', 16,    'items',   'Wildcards in a glob: *, **, ? and classes.'),
  ('lock_resources', 100,   'items',   'Resources acquired, renewed or released per call.'),
  ('lock_check',     1000,  'items',   'Paths per check, of which at most 100 are globs.'),
  ('lock_slots',     10000, 'holders', 'Slots of a counted lock.'),
  ('lock_owner',     200,   'characters', 'Owner of a lock within its agent, such as session/subagent.'),
  ('lock_uses',      1000,  'acquisitions', 'Unreleased acquisitions of one lock by the same owner.'),
  ('lock_ttl_max',   86400, 'seconds', 'Longest TTL of a lock, and longest wait for a lock: one day.'),
  ('lock_delay_max', 3600,  'seconds', 'Longest lock-delay.'),
  ('lock_waiters',   1000,  'tickets', 'Tickets waiting for one resource.'),
  ('lock_claim',     10,    'seconds', 'Time that a waiter has to claim a lock after the lock was handed to it.');

create or replace function coordinator.lock_job(p_owner text) returns uuid
language sql immutable parallel safe
return case when p_owner ~ '^job/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/[0-9]+(/|$)' then split_part(p_owner, '/', 2)::uuid end;
comment on function coordinator.lock_job(text) is
  'Return the job to whose attempt an owner of locks belongs (job_owner); null: to none. Internal.';

create or replace view coordinator.lock_holders with (security_barrier) as
  select l.resource, l.kind, l.mode, l.slots, case when l.slots is not null then l.slot::integer end as slot, l.agent_id,
         l.agent_name as agent, l.fencing_token, l.acquired_at, l.expires_at, p.name as project, l.owner,
         case when l.owner ~ '^job/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/[0-9]+(/|$)' then split_part(l.owner, '/', 2)::uuid end as job -- lock_job
  from coordinator.locks l join coordinator.projects p on p.id = l.project_id
  where l.expires_at > coordinator.now_utc()
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.lock_holders               is 'Held locks.';
comment on column coordinator.lock_holders.resource      is 'Locked resource: name:deploy, src/a.py, src/ or src/**/*.py.';
comment on column coordinator.lock_holders.kind          is 'name, path, directory or glob.';
comment on column coordinator.lock_holders.mode          is 'exclusive or shared.';
comment on column coordinator.lock_holders.slots         is 'Number of slots of a counted lock; null for others.';
comment on column coordinator.lock_holders.slot          is 'Number of the held slot, from 1; null for others.';
comment on column coordinator.lock_holders.agent_id      is 'Agent that holds it; see agents.';
comment on column coordinator.lock_holders.agent         is 'Name of the agent.';
comment on column coordinator.lock_holders.fencing_token is 'Fencing token; grows with each grant, even after a fail-over.';
comment on column coordinator.lock_holders.acquired_at   is 'When it was granted.';
comment on column coordinator.lock_holders.expires_at    is 'When the lease expires.';
comment on column coordinator.lock_holders.project       is 'Name of the project.';
comment on column coordinator.lock_holders.owner         is 'Owner within the agent, such as session/subagent; empty: the agent itself.';
comment on column coordinator.lock_holders.job           is 'Job whose attempt holds it until the attempt ends; null: none.';

create or replace view coordinator.file_locks as
  select regexp_replace(l.resource, '^path:', '') as path, l.agent_id, l.mode as lock_type, l.acquired_at as created_at, l.expires_at, l.project
  from coordinator.lock_holders l where l.kind <> 'name';
comment on view   coordinator.file_locks            is 'Locked paths, directories and globs.';
comment on column coordinator.file_locks.path       is 'Path, directory (ends with /), or glob.';
comment on column coordinator.file_locks.agent_id   is 'Agent that holds it; see agents.';
comment on column coordinator.file_locks.lock_type  is 'exclusive or shared.';
comment on column coordinator.file_locks.created_at is 'When it was granted.';
comment on column coordinator.file_locks.expires_at is 'When the lease expires.';
comment on column coordinator.file_locks.project    is 'Name of the project.';

create or replace function coordinator.lock_is_plain(p_resource text) returns boolean
language sql immutable parallel safe
return p_resource ~ '^(?:name:)?[A-Za-z0-9_+@-][A-Za-z0-9_.+@-]*(?:/[A-Za-z0-9_+@-][A-Za-z0-9_.+@-]*)*$'
       and length(p_resource) <= 1024 and split_part(p_resource, '/', 33) = '';
comment on function coordinator.lock_is_plain(text) is
  'Return whether a resource is a name or path that needs no parsing, as most are. Internal.';

create or replace function coordinator.lock_key(p_project_id bigint, p_path text) returns bigint
language sql immutable parallel safe
return hashtextextended(case when p_path = '' then '' else '/' || p_path end, p_project_id);
comment on function coordinator.lock_key(bigint, text) is
  'Return the key of the advisory lock on a path of a project (empty: its root) or on a name. Internal.';

-- Without a search_path of its own, since it runs within its callers': setting one costs more than the rest. Assignments take the
-- advisory locks, because PERFORM runs a statement, which costs twice as much. A name is treated as a path: the only effect is
-- that it sometimes waits for a change to the root.
create or replace function coordinator.lock_enter_plain(p_project_id bigint, p_resource text) returns text[]
language plpgsql volatile
as $$
declare
  v_places text[] := string_to_array(p_resource, '/');
  v_at     text := '';
  v_taken  boolean;
begin
  for v_i in 1 .. cardinality(v_places) loop
    v_taken := pg_try_advisory_xact_lock_shared(hashtextextended(v_at, p_project_id)); -- its lock_key
    if not v_taken then
      perform coordinator.advisory_enter(hashtextextended(v_at, p_project_id), true);
    end if;
    v_at := v_at || '/' || v_places[v_i];
    v_places[v_i] := v_at;
  end loop;
  v_taken := pg_try_advisory_xact_lock(hashtextextended(v_at, p_project_id));
  if not v_taken then
    perform coordinator.advisory_enter(hashtextextended(v_at, p_project_id));
  end if;
  return array_prepend('', v_places);
end
$$;
comment on function coordinator.lock_enter_plain(bigint, text) is
  'Do what lock_enter does for a plain name or path; returns the root, the directories above it and itself, each with a leading /. Internal.';

create or replace function coordinator.lock_keys(p_project_id bigint, p_resources coordinator.lock_resource[])
returns table (key bigint, shared boolean)
language sql immutable parallel safe
begin atomic
  with wanted as (
    select r.path collate "C" as path, true as own, r.kind from unnest(p_resources) r
    union all
    select a, false, r.kind from unnest(p_resources) r, unnest(r.above) a
  ), counted as (
    select count(distinct path) > 200 as many from wanted where kind <> 'name'
  )
  select coordinator.lock_key(p_project_id, k.path), not k.own
  from (select case when many and kind <> 'name' then '' else path end as path, bool_or(own or many) as own from wanted, counted group by 1) k
  order by k.path;
end;
comment on function coordinator.lock_keys(bigint, coordinator.lock_resource[]) is
  'Return the keys of the advisory locks under which the holders of resources change, in their order. Internal.';

create or replace function coordinator.lock_enter_try(p_project_id bigint, p_resources coordinator.lock_resource[]) returns boolean
language sql volatile
set search_path = pg_catalog, pg_temp
return coalesce((
  select bool_and(case when k.shared then pg_try_advisory_xact_lock_shared(k.key) else pg_try_advisory_xact_lock(k.key) end)
  from coordinator.lock_keys(p_project_id, p_resources) k), true);
comment on function coordinator.lock_enter_try(bigint, coordinator.lock_resource[]) is
  'Do what lock_enter does, but do not wait; false: another transaction holds one of the keys. Internal.';

create or replace function coordinator.lock_enter(p_project_id bigint, p_resources coordinator.lock_resource[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text;
begin
  perform coordinator.check_isolation('locks change', 'assert_fence works at every isolation level.');
  if cardinality(p_resources) = 1 then
    foreach v_text in array p_resources[1].above loop
      perform coordinator.advisory_enter(coordinator.lock_key(p_project_id, v_text), true);
    end loop;
    perform coordinator.advisory_enter(coordinator.lock_key(p_project_id, p_resources[1].path));
    return;
  end if;
  perform coordinator.advisory_enter(k.key, k.shared) from (select * from coordinator.lock_keys(p_project_id, p_resources) offset 0) k;
end
$$;
comment on function coordinator.lock_enter(bigint, coordinator.lock_resource[]) is
  'Take the advisory locks under which the holders of resources change, until the end of the transaction. Internal.';

create or replace function coordinator.lock_parse_all(p_resources text[]) returns coordinator.lock_resource[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_texts text[];
  v_all   coordinator.lock_resource[];
begin
  if coalesce(cardinality(p_resources), 0) = 0 then
    raise exception using errcode = 'ZC101', message = 'no resource was given', hint = 'Give at least one, such as src/app.py.';
  elsif cardinality(p_resources) > 100 then
    raise exception using errcode = 'ZC102',
      message = format('%s resources in one call; at most 100 are allowed', cardinality(p_resources)),
      hint = 'Lock a directory or glob that contains them.';
  elsif cardinality(p_resources) = 1 then
    return array[coordinator.lock_parse(p_resources[1])];
  end if;
  -- Each resource once, in the same order for every caller.
  select array_agg(r order by (r).resource collate "C") into v_all
  from (select distinct on ((r).resource) r
        from (select coordinator.lock_parse(t) as r from unnest(p_resources) t offset 0) parsed) one;
  return v_all;
end
$$;
comment on function coordinator.lock_parse_all(text[]) is
  'Parse the resources of one call: 1 to 100, each once, in byte order. Internal.';

create or replace function coordinator.lock_check_options(
  p_resources coordinator.lock_resource[], p_shared boolean, p_slots integer, p_wait interval, p_delay interval) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_slots is not null then
    if p_slots not between 1 and 10000 then
      raise exception using errcode = 'ZC104', message = format('%s slots are out of range', p_slots), hint = 'Give 1 to 10000.';
    elsif p_shared then
      raise exception using errcode = 'ZC105', message = 'a lock with slots cannot be shared', hint = 'Give either slots or shared.';
    elsif exists (select from unnest(p_resources) r where r.kind <> 'name') then
      raise exception using errcode = 'ZC105', message = 'only names have slots', hint = 'Write a name, such as name:gpu.';
    end if;
  end if;
  if p_wait not between interval '0' and interval '1 day' then
    raise exception using errcode = 'ZC104', message = format('a wait of %s is out of range', coordinator.duration_text(p_wait)), hint = 'Give 0s to 1d.';
  end if;
  if p_delay is null or p_delay not between interval '0' and interval '1 hour' then
    raise exception using errcode = 'ZC104', message = format('a lock-delay of %s is out of range', case when p_delay is null then 'null' else coordinator.duration_text(p_delay) end),
      hint = 'Give 0s to 1h.';
  end if;
end
$$;
comment on function coordinator.lock_check_options(coordinator.lock_resource[], boolean, integer, interval, interval) is
  'Reject invalid slots, waits and delays (ZC104, ZC105). Internal.';

create or replace function coordinator.lock_check_owner(p_owner text) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_name('the owner', p_owner);
  if string_to_array(p_owner, '/') && array[''] then
    raise exception using errcode = 'ZC103', message = format('the owner "%s" has an empty part', p_owner),
      hint = 'Separate parts with one /, such as session/subagent.';
  end if;
end
$$;
comment on function coordinator.lock_check_owner(text) is
  'Reject an invalid owner: see check_name; or one with an empty part (ZC103). Internal.';

create or replace function coordinator.lock_refuse_slots(p_resource text, p_present integer, p_slots integer) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'ZC314',
    message = case when p_present is null then format('"%s" is in use as a lock without slots, not with %s', p_resource, p_slots)
                   when p_slots is null then format('"%s" is in use as a lock with %s slots', p_resource, p_present)
                   else format('"%s" is in use as a lock with %s slots, not %s', p_resource, p_present, p_slots) end,
    detail = jsonb_build_object('resource', p_resource, 'slots', p_present)::text,
    hint = 'All holders and waiters must give the same number of slots.';
end
$$;
comment on function coordinator.lock_refuse_slots(text, integer, integer) is
  'Raise ZC314: holders or waiters use another number of slots. Internal.';
