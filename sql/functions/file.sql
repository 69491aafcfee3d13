-- Files: several agents edit one tree, and none overwrites the changes of another.
--
-- Guarantees
--   An edit begins with file_edit, which leases all its files or none, and compares the content of each with the content that the
--   caller saw last. A file that somebody else has changed since then is stale: the caller has to read it again. It keeps the lease
--   meanwhile, so the file cannot change again before it is read.
--   What was seen is stored per owner: a subagent has not seen what its session has seen. It outlives the agent, so a session that is
--   resumed tomorrow still knows what it read today.
--   Each call registers the agent if necessary, counts as its heartbeat, and renews all its leases, so an agent that only edits needs
--   no other calls.
--   A place in the queue is a lease as well: each repetition of a call extends it, and a caller that is killed while it waits soon
--   loses it.
--
-- How it works. A lock is the lease of a file (lock/lock.sql). The caller hashes the file, calls file_edit, and hashes the file again
-- once the lease is granted: before the grant, the former holder may have changed the content. If the hash differs, the caller calls
-- again. A change while the caller held the lease that nobody else has recorded is the caller's own, for example by a formatter. A read
-- is recorded before it begins and again when it is done; if the two hashes differ, the earlier one counts.
--
-- Deliberately absent: the content itself, and files that nobody reads or edits through these functions.

insert into coordinator.rights (function, role) values
  ('file_list',   'reader'),
  ('file_edit',   'agent'),
  ('file_leave',  'agent'),
  ('file_record', 'agent');

insert into coordinator.limits (name, value, unit, meaning) values
  ('file_hash', 128, 'characters', 'Hash of a file''s content, chosen by the caller.');

create or replace view coordinator.file_views with (security_barrier) as
  select p.name as project, f.path, f.agent_name as agent, f.owner, f.hash, f.seen_at, f.wrote_at
  from coordinator.files_seen f join coordinator.projects p on p.id = f.project_id
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.file_views          is 'File contents that each agent last saw.';
comment on column coordinator.file_views.project  is 'Name of the project.';
comment on column coordinator.file_views.path     is 'Path of the file, as locks spell it.';
comment on column coordinator.file_views.agent    is 'Name of the agent.';
comment on column coordinator.file_views.owner    is 'Owner within the agent, such as session/subagent; empty: the agent itself.';
comment on column coordinator.file_views.hash     is 'Hash of the content; -: the file did not exist; null: unknown.';
comment on column coordinator.file_views.seen_at  is 'When it read or wrote that content.';
comment on column coordinator.file_views.wrote_at is 'When it last wrote the file; null: never.';

create or replace function coordinator.file_check(p_paths text[], p_hashes text[], p_owner text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hash text;
begin
  if coalesce(cardinality(p_paths), 0) = 0 then
    raise exception using errcode = 'ZC101', message = 'the paths are missing', hint = 'Name at least one file.';
  elsif array_ndims(p_paths) > 1 or array_lower(p_paths, 1) <> 1 or array_ndims(p_hashes) > 1 or array_lower(p_hashes, 1) <> 1 then
    raise exception using errcode = 'ZC103', message = 'the paths or hashes are not a plain list',
      hint = 'Give one-dimensional arrays whose subscripts begin at 1.';
  elsif cardinality(p_paths) > 100 then
    raise exception using errcode = 'ZC102', message = format('%s files in one call; at most 100 are allowed', cardinality(p_paths)),
      hint = 'Use several calls.';
  elsif array_position(p_paths, null) is not null then
    raise exception using errcode = 'ZC101', message = 'a path is null', hint = 'Name the files.';
  elsif coalesce(cardinality(p_hashes), 0) not in (0, cardinality(p_paths)) then
    raise exception using errcode = 'ZC105', message = format('%s hashes for %s files', cardinality(p_hashes), cardinality(p_paths)),
      hint = 'Give a hash for each file: - where there is no such file, empty where it is unknown; or none at all.';
  end if;
  foreach v_hash in array coalesce(p_hashes, '{}') loop
    if length(v_hash) > 128 then
      raise exception using errcode = 'ZC102', message = format('a hash has %s characters; at most 128 are allowed', length(v_hash)),
        hint = 'SHA-256 has 64 in hexadecimal.';
    end if;
  end loop;
  if p_owner <> '' then
    perform coordinator.lock_check_owner(p_owner);
  end if;
end
$$;
comment on function coordinator.file_check(text[], text[], text) is
  'Reject invalid files of a call. ZC101, ZC102, ZC105. Internal.';

create or replace function coordinator.file_stale(
  p_project_id bigint, p_path text, p_agent uuid, p_name text, p_owner text, p_hash text,
  out stale boolean, out changed_by text, out changed_at timestamptz, out told text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_seen  coordinator.files_seen;
  v_other coordinator.files_seen;
begin
  stale := false;
  select * into v_seen from coordinator.files_seen f
  where f.project_id = p_project_id and f.path = p_path and f.agent_name = p_name and f.owner = p_owner;
  if not found or p_hash = v_seen.hash then
    return; -- it has not seen the file, or the file has not changed since
  end if;
  select * into v_other from coordinator.files_seen f
  where f.project_id = p_project_id and f.path = p_path and (f.agent_name <> p_name or f.owner <> p_owner) and f.wrote_at > v_seen.seen_at
  order by f.wrote_at desc limit 1;
  if found then
    stale := v_other.hash is distinct from v_seen.hash or p_hash is not null or v_seen.hash is null;
  elsif p_hash is not null and v_seen.hash is not null then
    -- Nobody else has recorded a change, so it is the caller's own if it has held the file ever since.
    stale := not exists (
      select from coordinator.lock_overlapping(p_project_id, coordinator.lock_parse(p_path), false) l
      where l.mode = 'exclusive' and l.acquired_at <= v_seen.seen_at and l.expires_at > coordinator.now_utc()
        and coordinator.lock_may_use(p_agent, p_owner, l.agent_id, l.owner));
  end if;
  if stale then
    changed_by := concat_ws('/', v_other.agent_name, nullif(v_other.owner, ''));
    changed_by := nullif(changed_by, '');
    changed_at := v_other.wrote_at;
    told := v_seen.told;
  end if;
end
$$;
comment on function coordinator.file_stale(bigint, text, uuid, text, text, text) is
  'Return whether a file with the content p_hash differs from what an owner last saw, so that the owner may not edit it yet, and who recorded the change. Internal.';

create or replace function coordinator.file_edit(
  p_project text, p_agent text, p_paths text[], p_hashes text[] default '{}', p_owner text default '', p_ttl interval default '10 minutes',
  p_wait interval default null, p_shared boolean default false, p_told boolean default false, p_metadata jsonb default null,
  p_unreserved boolean default false)
returns setof coordinator.file_grant
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_joined  coordinator.agents;
  v_agent   uuid;
  v_mode    text := case when p_shared then 'shared' else 'exclusive' end;
  v_texts   text[];
  v_all     text[];
  v_parsed  coordinator.lock_resource;
  v_wanted  text[];
  v_refused text;
  v_request uuid;
  v_ticket  bigint;
  v_now     timestamptz;
  v_stale   record;
  v_grant   coordinator.file_grant;
begin
  p_owner := coalesce(p_owner, '');
  perform coordinator.file_check(p_paths, p_hashes, p_owner);
  v_texts := coordinator.lock_texts(p_project, p_paths);
  v_all := array(select coordinator.lock_spelling(t) from unnest(v_texts) with ordinality u (t, n) order by n);
  v_joined := coordinator.agent_enter(v_project, p_project, p_agent, null, p_metadata, p_ttl, p_unreserved, null);
  v_agent := v_joined.id;

  -- Leases that it already holds were renewed by agent_enter.
  v_wanted := array(
    select distinct r from unnest(v_all collate "C") r
    where not exists (
      select from coordinator.locks l
      where l.project_id = v_project and l.resource = r and l.agent_id = v_agent and l.owner = p_owner and l.claimed
        and l.expires_at > coordinator.now_utc() and (p_shared or l.mode = 'exclusive'))
    order by r);
  if v_wanted <> '{}' then
    v_request := md5(array_to_string(array[p_owner, v_mode] || v_wanted, E'\n'))::uuid;
    if p_wait between interval '0' and interval '1 day' then
      perform coordinator.lock_ticket_extend(v_project, v_agent, p_owner, v_request, p_wait);
    end if;
    begin
      -- A repeated call finds its ticket.
      select max(g.ticket) filter (where not g.granted) into v_ticket
      from coordinator.lock_acquire(p_project, v_wanted, v_agent, p_shared, null, p_ttl, p_wait, interval '0', v_request, p_owner) g;
    exception when sqlstate 'ZC310' then
      v_refused := 'held';
    when sqlstate 'ZC313' then
      v_refused := 'deadlock';
    when sqlstate 'ZC401' then -- its ticket has expired
      v_refused := 'held';
    end;
  end if;
  v_now := coordinator.now_utc();

  for v_i in 1 .. cardinality(v_all) loop
    v_grant := null;
    v_grant.path := p_paths[v_i];
    v_grant.agent_id := v_agent;
    if v_refused is not null or v_ticket is not null then
      v_grant.ticket := v_ticket;
      v_parsed := coordinator.lock_parse(v_texts[v_i]);
      select b.agent_id, b.agent_name, b.owner, b.resource, b.expires_at, l.acquired_at into
        v_grant.holder_id, v_grant.holder, v_grant.holder_owner, v_grant.held, v_grant.held_until, v_grant.held_since
      from coordinator.lock_blockers(v_project, v_agent, p_owner, v_ticket, v_parsed, v_mode, null) b
      left join coordinator.locks l on l.project_id = v_project and l.resource = b.resource and l.fencing_token = b.fencing_token
      order by b.ticket nulls first, b.expires_at desc limit 1;
      if found then
        v_grant.state := coalesce(v_refused, 'waiting');
        v_grant.holder_task := (select a.metadata ->> 'task' from coordinator.agents a where a.id = v_grant.holder_id);
        v_grant.waiting := (select count(distinct w.ticket) from coordinator.lock_overlapping(v_project, v_parsed, true) w where w.expires_at > v_now);
      else
        v_grant.state := 'free';
      end if;
    else
      v_grant.state := 'granted';
      select l.expires_at into v_grant.expires_at from coordinator.locks l
      where l.project_id = v_project and l.resource = v_all[v_i] and l.agent_id = v_agent and l.owner = p_owner and l.expires_at > v_now;
      if not p_shared and v_all[v_i] = any (v_wanted)
         and (case when coordinator.lock_is_plain(v_all[v_i]) then v_all[v_i] not like 'name:%' else (coordinator.lock_parse(v_texts[v_i])).kind = 'path' end) then
        v_grant.elsewhere := coordinator.lock_elsewhere(v_project, v_all[v_i], v_agent);
      end if;
      if not p_shared then
        v_stale := coordinator.file_stale(v_project, v_all[v_i], v_agent, v_joined.name, p_owner, nullif(p_hashes[v_i], ''));
        if v_stale.stale and not (p_told and v_stale.told is not distinct from coalesce(nullif(p_hashes[v_i], ''), v_stale.changed_at::text)) then
          v_grant.state := 'stale';
          v_grant.changed_by := v_stale.changed_by;
          v_grant.changed_at := v_stale.changed_at;
          if p_told then
            update coordinator.files_seen f set told = coalesce(nullif(p_hashes[v_i], ''), v_stale.changed_at::text)
            where f.project_id = v_project and f.path = v_all[v_i] and f.agent_name = v_joined.name and f.owner = p_owner;
          end if;
        end if;
      end if;
    end if;
    return next v_grant;
  end loop;
end
$$;
comment on function coordinator.file_edit(text, text, text[], text[], text, interval, interval, boolean, boolean, jsonb, boolean) is
  'Begin to edit files: acquire leases on all of them, or none, for the agent p_agent or its owner p_owner, and compare each file with what that owner last saw (file_record). The agent is registered if necessary, and stays registered for p_ttl after each call; p_metadata is merged into its metadata. p_hashes: the hash of each file; - for a file that does not exist, empty if unknown. Hash the files again once the lease is granted, and call again if a hash differs. A stale file must be read first; its lease is granted anyway. p_wait: how long to wait in the queue if the files are not free; the rows then have a ticket. Repeat the call to learn whether the ticket was served; each call waits for p_wait from then on. A caller that wants to wait for minutes gives a few seconds and repeats the call. lock_cancel ends the wait. p_shared: share the files with other readers. p_told: a caller that does not record what it reads is told about a change once, and may edit then. p_unreserved: see agent_register.';

create or replace function coordinator.file_record(
  p_project text, p_agent text, p_paths text[], p_hashes text[] default '{}', p_step text default 'read', p_owner text default '',
  p_ttl interval default '10 minutes', p_metadata jsonb default null, p_unreserved boolean default false)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_name    text;
  v_now     timestamptz;
  v_count   integer;
begin
  p_owner := coalesce(p_owner, '');
  perform coordinator.file_check(p_paths, p_hashes, p_owner);
  if p_step is null or p_step not in ('reading', 'read', 'written') then
    raise exception using errcode = 'ZC105', message = format('unknown step "%s"', left(coalesce(p_step, ''), 200)),
      hint = 'Use reading before a read, read after it, and written after a write.';
  end if;
  v_name := (coordinator.agent_enter(v_project, p_project, p_agent, null, p_metadata, p_ttl, p_unreserved, null)).name;
  v_now := coordinator.now_utc();
  insert into coordinator.files_seen as f (project_id, path, agent_name, owner, hash, seen_at, wrote_at, reading)
  select distinct on (r.path) v_project, r.path, v_name, p_owner, nullif(r.hash, ''), v_now, case when p_step = 'written' then v_now end, p_step = 'reading'
  from (select coordinator.lock_spelling(t) as path, h as hash, n
        from unnest(coordinator.lock_texts(p_project, p_paths)) with ordinality u (t, n)
        left join unnest(p_hashes) with ordinality v (h, m) on m = n) r
  order by r.path, r.n desc
  on conflict (project_id, path, agent_name, owner) do update
  set hash = excluded.hash, seen_at = excluded.seen_at, wrote_at = coalesce(excluded.wrote_at, f.wrote_at), reading = excluded.reading, told = null
  -- The file changed while it was read, so either content may have been read. The earlier hash is the safe choice.
  where not (p_step = 'read' and f.reading and f.hash is distinct from excluded.hash);
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function coordinator.file_record(text, text, text[], text[], text, text, interval, jsonb, boolean) is
  'Record the content of files as seen by the agent p_agent or its owner p_owner. p_step: reading (before a read), read (after it) or written (after a write). p_hashes: as in file_edit. The call registers the agent if necessary, and counts as a heartbeat. Return the number of recorded files. No event.';

create or replace function coordinator.file_leave(
  p_project text, p_agent text, p_owner text default '', p_paths text[] default null, p_end boolean default false,
  p_heir text default null) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project   bigint := coordinator.project_id(p_project);
  v_agent     uuid;
  v_name      text;
  v_resources text[];
begin
  p_owner := coalesce(p_owner, '');
  perform coordinator.check_name('the name of the agent', p_agent);
  if p_owner <> '' then
    perform coordinator.lock_check_owner(p_owner);
  end if;
  if p_heir <> '' then
    perform coordinator.lock_check_owner(p_heir);
  end if;
  if p_heir not in ('', p_owner) and not starts_with(p_owner, p_heir || '/') then
    raise exception using errcode = 'ZC105', message = format('the heir "%s" is neither the owner "%s" nor above it', p_heir, p_owner),
      hint = 'Give the owner itself, the session of a subagent, or an empty text for the agent.';
  end if;
  if p_paths is not null then
    perform coordinator.file_check(p_paths, null, '');
    v_resources := array(select coordinator.lock_spelling(t) from unnest(coordinator.lock_texts(p_project, p_paths)) t);
  end if;
  v_agent := coordinator.agent_joined(v_project, p_agent);
  if v_agent is null then
    return 0;
  end if;
  if p_end and p_owner = '' and p_paths is null then
    perform coordinator.agent_end(v_agent, 'agent.deregistered', null, '{}');
    return 1;
  end if;
  select a.name into v_name from coordinator.agents a where a.id = v_agent for key share;
  if not found then
    return 0;
  end if;
  return coordinator.lock_end_agent(v_project, p_project, v_agent, v_name, p_owner, v_resources, p_heir);
end
$$;
comment on function coordinator.file_leave(text, text, text, text[], boolean, text) is
  'Release everything held by an agent, or by one of its owners and the owners below it, and stop waiting; p_paths: only these paths. Return the number of released locks, whatever their tokens and the number of acquisitions. p_end: also deregister the agent, whatever p_heir is. p_heir: this owner, p_owner or one above it, keeps the exclusive locks on files, with new tokens, until they are committed, for instance. ZC105: it is another owner. 0: the agent is not registered, or holds nothing.';

create or replace function coordinator.file_list(
  p_project text, p_agent text default null, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.file_views
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{text,text,text}');
  return query
    select p_project, f.path, f.agent_name, f.owner, f.hash, f.seen_at, f.wrote_at
    from coordinator.files_seen f
    where f.project_id = v_project and (p_agent is null or f.agent_name = p_agent)
      and (f.path, f.agent_name, f.owner) > (coalesce(p_after[1], ''), coalesce(p_after[2], ''), coalesce(p_after[3], ''))
    order by f.path, f.agent_name, f.owner limit p_limit;
end
$$;
comment on function coordinator.file_list(text, text, text[], integer) is
  'List the file contents that the agents of a project, or only p_agent, have seen, by path. p_after: array[path, agent, owner] of the last row read.';

create or replace function coordinator.file_prune(p_retention interval default '14 days', p_limit integer default 10000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return coordinator.prune_rows('coordinator.files_seen', 'seen_at', p_retention, p_limit);
end
$$;
comment on function coordinator.file_prune(interval, integer) is
  'Delete up to p_limit views of files that are older than p_retention; returns how many. Repeat until 0. No events.';
