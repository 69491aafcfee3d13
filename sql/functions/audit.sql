-- The audit trail of a project: who did what, when, and from where.
--
-- A loop of the leader copies events from the numbered log into the project's log of kind "audit", so writers do not wait for it.
-- Events of a project that does not exist, such as its deletion, go to a trail without a project.
--
-- Exactly once. One transaction moves the cursor (audit_cursor) and appends the entries, and it locks the row of the cursor. So a crash
-- repeats both or neither, and a second leader finds the row locked. event_prune keeps events that were not copied for up to four times
-- its retention. If events are lost after that, every trail says so (lost). A trail that another transaction obstructs, such as the
-- deletion of its project, is set aside with its position (late) and continued by later runs.
--
-- The chain. The hash of an entry is sha256(hash before it, as 64 hexadecimal digits || newline || text of the entry), of UTF-8 bytes.
-- For the first entry, the hash before it is 64 zeros. The text contains the number of the entry and its epoch, so entries cannot be
-- moved. To change, remove or insert an entry, one would have to compute all later hashes again; comparing the result with a head that
-- was exported before reveals this.
--
-- Retention (log_trim) removes entries from the beginning, after it has verified their hashes. It appends an entry (pruned) with the
-- number and the hash of the last removed entry: the anchor. The chain can be verified from there on. An anchor that is in no entry is
-- forged.
--
-- What is audited: events of the topics of audit_defaults, or of the topics that audit_set chose for the project; and always audit.*. A
-- choice applies from its own event on, so nobody can hide earlier actions by switching the audit off.
--
-- Locks: the row of the cursor; headers of trails by project.

insert into coordinator.event_types (type, key, data, meaning) values
  ('audit.set',   'name of the project', '{topics}', 'The topics that are audited in the project were changed.'),
  ('audit.reset', 'name of the project', '{topics}', 'The project uses the default audited topics again.');

insert into coordinator.rights (function, role) values
  ('audit_list',   'manager'),
  ('audit_show',   'manager'),
  ('audit_verify', 'manager'),
  ('audit_set',    'admin'),
  ('audit_reset',  'admin');

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_audit_behind_seconds', 'audit_sample', 'gauge', '{}', 'seconds', 'Time since the oldest event that is missing from the audit trails was numbered; 0: none is missing.');

-- Changes of configuration and of rights, and actions that take something away from another person. Not the work itself: at 5,000
-- events a second, that would double what the database writes.
create or replace function coordinator.audit_defaults() returns text[]
language sql immutable parallel safe
return array[
  'audit.*', 'project.*', 'user.*', 'token.*', 'role.*', 'retention.*', 'rule.*', 'event.configured', 'backup.*',
  'queue.set', 'queue.deleted', 'queue.paused', 'queue.resumed', 'limit.set', 'limit.deleted', 'limit.held',
  'cron.set', 'cron.deleted', 'cron.paused', 'cron.resumed',
  'webhook.added', 'webhook.removed', 'webhook.rotated', 'webhook.paused', 'webhook.resumed', 'webhook.disabled', 'webhook.redriven',
  'lock.broken', 'directive.sent', 'directive.revoked', 'job.answered',
  'session.deleted', 'document.deleted', 'artifact.deleted', 'knowledge.deleted', 'memory.forgotten', 'log.deleted', 'log.cleared', 'log.kept'];
comment on function coordinator.audit_defaults() is
  'Return the topics that are audited in a project that has not chosen its own.';

create or replace function coordinator.audit_hash(p_previous bytea, p_text text) returns bytea
language sql stable parallel safe
return sha256(convert_to(encode(coalesce(p_previous, decode(repeat('00', 32), 'hex')), 'hex') || E'\n' || p_text, 'UTF8'));
comment on function coordinator.audit_hash(bytea, text) is
  'Return the hash of an entry with this text that follows an entry with the hash p_previous; null: it is the first entry. Internal.';

create or replace function coordinator.audit_origin(p_origin text) returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Any role can claim anything: numbers such as 1e131071, in a thousand characters, make an entry of 14 MB.
  return case when p_origin is null then null
              when coordinator.json_text_fault(p_origin, 8192) is null and jsonb_typeof(p_origin::jsonb) = 'object' then p_origin::jsonb
              else jsonb_build_object('unreadable', p_origin) end;
exception when others then
  return jsonb_build_object('unreadable', p_origin);
end
$$;
comment on function coordinator.audit_origin(text) is
  'Return, as an object, the origin of a call according to a role; null if it has none. Internal.';

create or replace function coordinator.audit_header(p_project_id bigint, p_now timestamptz) returns coordinator.logs
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_log coordinator.logs;
begin
  loop
    select * into v_log from coordinator.logs l where l.project_id = p_project_id and l.kind = 'audit' and l.key = 'audit' for no key update;
    if found then
      return v_log;
    end if;
    insert into coordinator.logs (project_id, kind, key, epoch, updated_at, trim_at)
    values (p_project_id, 'audit', 'audit', coordinator.epoch_stamp(), p_now, p_now + coordinator.retention_age(p_project_id, 'log', 'audit'))
    on conflict do nothing;
  end loop;
end
$$;
comment on function coordinator.audit_header(bigint, timestamptz) is
  'Return the header of a project''s audit trail, locked until the commit; 0: the trail of no project. No event. Internal.';

create or replace function coordinator.audit_last(p_log_id bigint) returns bytea
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_entry record;
begin
  select e.hash into v_entry from coordinator.entries e where e.log_id = p_log_id order by e.seq desc limit 1;
  return case when found then v_entry.hash else (select a.hash from coordinator.audit_anchors a where a.log_id = p_log_id) end;
end
$$;
comment on function coordinator.audit_last(bigint) is
  'Return the hash of the last entry of a trail; null: it has none. Internal.';

create or replace function coordinator.audit_append(p_log coordinator.logs, p_bodies text[], p_actors text[], p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stamp  integer := coordinator.epoch_stamp();
  v_epoch  text := coordinator.epoch_text(v_stamp);
  v_hash   bytea := coordinator.audit_last(p_log.id);
  v_at     timestamptz := greatest(p_log.updated_at, p_now);
  v_count  integer := cardinality(p_bodies);
  v_hashes bytea[];
begin
  for v_n in 1..v_count loop
    p_bodies[v_n] := '{"entry": ' || p_log.last_seq + v_n || ', "epoch": "' || v_epoch || '", ' || p_bodies[v_n] || '}';
    v_hash := coordinator.audit_hash(v_hash, p_bodies[v_n]);
    v_hashes[v_n] := v_hash;
  end loop;
  insert into coordinator.entries (log_id, seq, epoch, actor, created_at, data, hash)
  select p_log.id, p_log.last_seq + u.place, v_stamp, u.actor, v_at, u.body::json, u.hash
  from unnest(p_bodies, p_actors, v_hashes) with ordinality u (body, actor, hash, place);
  update coordinator.logs l
  set last_seq = p_log.last_seq + v_count, count = l.count + v_count, epoch = v_stamp, updated_at = v_at,
      trim_at = case when (p_log.last_seq + v_count) / 256 > p_log.last_seq / 256
                      and l.count + v_count > coordinator.retention_count(p_log.project_id, 'log', 'audit')
                     then least(l.trim_at, p_now) else l.trim_at end
  where l.id = p_log.id;
end
$$;
comment on function coordinator.audit_append(coordinator.logs, text[], text[], timestamptz) is
  'Append entries to a trail whose header is locked, given the members of each content and its actor. No event: entries come from events. Internal.';

create or replace function coordinator.audit_copy_part(
  p_chunk coordinator.event_chunks, p_after bigint, p_until bigint, p_late jsonb, p_project text, p_now timestamptz) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set plan_cache_mode = force_generic_plan -- planning takes longer than reading a chunk
as $$
declare
  v_default text := coordinator.topic_pattern(coordinator.audit_defaults());
  v_epoch   text := (select epoch from coordinator.relay);
  -- Compare the pattern with each type of the chunk only once.
  v_types   text[] := array(select t.type from (select distinct e.type from coordinator.chunk_events(p_chunk, p_after) e) t where t.type ~ v_default);
  v_trail   record;
  v_change  bigint;
  v_project bigint;
  v_topics  text[]; -- null: the default topics
  v_until   bigint;
begin
  -- Copy up to the next change of a policy, which applies to later events.
  while p_after < p_until and (v_types <> '{}' or exists (select from coordinator.audit_applied)) loop
    v_change := null;
    v_project := null;
    if v_types && '{audit.set,audit.reset}' then
      select e.seq, p.id, case when e.type = 'audit.set' then array(select jsonb_array_elements_text(e.data -> 'topics')) end into v_change, v_project, v_topics
      from coordinator.chunk_events(p_chunk, p_after) e left join coordinator.projects p on p.name = e.project
      where e.seq <= p_until and e.type in ('audit.set', 'audit.reset') and coalesce(e.project = p_project, not p_late ? e.project) order by e.seq limit 1;
    end if;
    v_until := coalesce(v_change, p_until);
    for v_trail in
      select t.project_id, array_agg(t.body order by t.seq) as bodies, array_agg(t.actor order by t.seq) as actors, min(t.project) as project
      from (select coalesce(p.id, 0) as project_id, e.project, e.seq, e.actor,
                   '"event": {"cursor": "' || v_epoch || '.' || e.seq || '", "type": "' || e.type || '", "project": "' || e.project
                   || '", "key": ' || coalesce(to_json(e.key)::text, 'null') || ', "actor": ' || to_json(e.actor)::text
                   || ', "at": "' || to_char(e.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                   || '", "data": ' || coordinator.event_text(e.data) || ', "transaction": "' || e.transaction
                   || '"}, "role": ' || coalesce(to_json(e.role)::text, 'null') || ', "address": ' || coalesce('"' || host(e.address) || '"', 'null')
                   || ', "origin": ' || coalesce(coordinator.audit_origin(e.origin)::text, 'null')
                   || ', "traceparent": ' || coalesce('"' || e.traceparent || '"', 'null') as body
            from coordinator.chunk_events(p_chunk, p_after) e
            left join coordinator.projects p on p.name = e.project
            left join coordinator.audit_applied s on s.project_id = p.id
            where e.seq <= v_until and coalesce(e.project = p_project, not p_late ? e.project)
              and case when s.project_id is null or e.type like 'audit.%' then e.type = any (v_types) else e.type ~ s.pattern end) t
      group by t.project_id order by t.project_id
    loop
      begin
        perform coordinator.audit_append(coordinator.audit_header(v_trail.project_id, p_now), v_trail.bodies, v_trail.actors, p_now);
        if v_trail.project_id = v_project then
          delete from coordinator.audit_applied a where a.project_id = v_project;
          insert into coordinator.audit_applied (project_id, pattern) -- none if the project has been deleted in the meantime
          select p.id, coordinator.topic_pattern(v_topics) from coordinator.projects p where p.id = v_project and v_topics is not null for key share;
        end if;
      exception when others then
        if p_project is not null or v_trail.project_id = 0 then
          raise;
        end if;
        perform coordinator.project_passed_over('audit_copy', v_trail.project_id, sqlerrm);
        p_late := p_late || jsonb_build_object(v_trail.project, p_after);
      end;
    end loop;
    p_after := v_until;
  end loop;
  return p_late;
end
$$;
comment on function coordinator.audit_copy_part(coordinator.event_chunks, bigint, bigint, jsonb, text, timestamptz) is
  'Copy audited events of a chunk after p_after, up to p_until: those of p_project, or, if it is null, of all projects that are not in p_late. Return p_late with the projects whose trails could not be written (see project_each). No event: entries come from events. Internal.';

create or replace function coordinator.audit_copy(p_limit integer default 20) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the log is small must also serve a large one
set jit = off
set lock_timeout = '100ms'
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_cursor coordinator.audit_cursor;
  v_late   jsonb;
  v_floor  bigint;
  v_chunk  coordinator.event_chunks;
  v_trail  record;
  v_seq    bigint;
  v_runs   integer := 0;
begin
  perform coordinator.check_page(p_limit);
  perform coordinator.check_isolation('events are copied into audit trails');
  select * into v_cursor from coordinator.audit_cursor c for update skip locked;
  if not found then
    return 0;
  end if;
  v_late := v_cursor.late;
  perform from coordinator.events where false; -- locks the log, see events_since: from here on, no partition can be dropped
  select last_value into v_floor from coordinator.event_floor;
  if v_cursor.seq < v_floor then -- every trail says so
    select coalesce(jsonb_object_agg(p.name, v_cursor.seq), '{}') || v_late into v_late
    from coordinator.logs l join coordinator.projects p on p.id = l.project_id where l.kind = 'audit' and l.key = 'audit';
    perform coordinator.audit_append(coordinator.audit_header(0, v_now),
      array[format('"lost": {"after": %s, "last": %s}', v_cursor.seq, v_floor)], array['coordinator'], v_now);
    v_cursor.seq := v_floor;
    v_runs := 1;
  end if;
  for v_trail in
    select l.key as project, l.value::bigint as seq, coalesce(p.id, 0) as project_id
    from jsonb_each_text(v_late) l left join coordinator.projects p on p.name = l.key order by 3, 1
  loop
    begin
      v_seq := greatest(v_trail.seq, v_floor);
      if v_trail.seq < v_floor then
        perform coordinator.audit_append(coordinator.audit_header(v_trail.project_id, v_now),
          array[format('"lost": {"after": %s, "last": %s}', v_trail.seq, v_floor)], array['coordinator'], v_now);
      end if;
      for v_run in 1..p_limit loop
        exit when v_seq >= v_cursor.seq;
        v_chunk := coordinator.event_chunk_after(v_seq);
        perform coordinator.audit_copy_part(v_chunk, v_seq, least(v_chunk.last_seq, v_cursor.seq), '{}', v_trail.project, v_now);
        v_seq := least(v_chunk.last_seq, v_cursor.seq);
      end loop;
      v_late := case when v_seq < v_cursor.seq then v_late || jsonb_build_object(v_trail.project, v_seq) else v_late - v_trail.project end;
    exception when others then
      perform coordinator.project_passed_over('audit_copy', v_trail.project_id, sqlerrm);
    end;
  end loop;
  while v_runs < p_limit loop
    v_chunk := coordinator.event_chunk_after(v_cursor.seq);
    exit when v_chunk.first_seq is null;
    v_late := coordinator.audit_copy_part(v_chunk, v_cursor.seq, v_chunk.last_seq, v_late, null, v_now);
    v_cursor.seq := v_chunk.last_seq;
    v_runs := v_runs + 1;
  end loop;
  update coordinator.audit_cursor c set seq = v_cursor.seq, late = v_late, copied_at = v_now where v_runs > 0 or c.late <> v_late;
  return v_runs;
end
$$;
comment on function coordinator.audit_copy(integer) is
  'Copy audited events from up to p_limit chunks of the log into the audit trails; return how many chunks. Fewer than p_limit: there are no more, or another call is copying. No event: entries come from events.';

create or replace function coordinator.audit_prune(p_log coordinator.logs, p_last bigint, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_anchor coordinator.audit_anchors;
  v_entry  record;
  v_first  bigint;
  v_next   bigint;
  v_hash   bytea;
  v_count  bigint := 0;
  v_intact boolean := true;
begin
  select * into v_anchor from coordinator.audit_anchors a where a.log_id = p_log.id;
  v_hash := v_anchor.hash;
  v_next := v_anchor.seq + 1;
  for v_entry in
    select e.seq, e.data::text as text, e.hash from coordinator.entries e
    where e.log_id = p_log.id and e.seq between p_log.trim_from and p_last and e.hash is not null order by e.seq
  loop
    v_intact := v_intact and v_entry.seq = coalesce(v_next, v_entry.seq) and v_entry.hash = coordinator.audit_hash(v_hash, v_entry.text);
    v_first := coalesce(v_first, v_entry.seq);
    v_next := v_entry.seq + 1;
    v_hash := v_entry.hash;
    v_count := v_count + 1;
  end loop;
  if v_count = 0 then -- all entries are from before hashes were introduced
    return;
  end if;
  insert into coordinator.audit_anchors (log_id, seq, hash) values (p_log.id, v_next - 1, v_hash)
  on conflict (log_id) do update set seq = excluded.seq, hash = excluded.hash;
  perform coordinator.audit_append(p_log, array['"pruned": ' || json_build_object(
    'first', v_first, 'last', v_next - 1, 'count', v_count, 'hash', encode(v_hash, 'hex'), 'intact', v_intact)], array['coordinator'], p_now);
end
$$;
comment on function coordinator.audit_prune(coordinator.logs, bigint, timestamptz) is
  'Prepare a trail for the removal of entries up to p_last by retention: verify their hashes, and append an entry with the anchor. The header is locked. No event. Internal.';

create or replace function coordinator.audit_find(p_project text) returns coordinator.logs
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := 0;
  v_log     coordinator.logs;
begin
  if p_project is null then
    perform coordinator.everywhere_check();
  else
    v_project := coordinator.project_id(p_project);
  end if;
  select * into v_log from coordinator.logs l where l.project_id = v_project and l.kind = 'audit' and l.key = 'audit';
  return v_log;
end
$$;
comment on function coordinator.audit_find(text) is
  'Return the header of a project''s audit trail, null if it has none yet; p_project null: the trail of projects that do not exist. Internal.';

create or replace function coordinator.audit_list(
  p_project text default null, p_actors text[] default null, p_topics text[] default null, p_since timestamptz default null,
  p_until timestamptz default null, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.audit_entry
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_log     coordinator.logs := coordinator.audit_find(p_project);
  v_pattern text := coordinator.topic_pattern(p_topics);
  v_low     bigint := 0;
begin
  perform coordinator.check_page(p_limit, p_after, '{number}');
  perform coordinator.check_list('the actors', p_actors);
  v_low := coalesce(p_after[1]::bigint, 0);
  if p_since is not null and v_log.id is not null then -- skip entries that were copied before p_since; an event is copied after it happened
    v_low := greatest(v_low, coordinator.log_seq_at(v_log, p_since));
  end if;
  return query
    select e.seq, coordinator.epoch_text(e.epoch), encode(e.hash, 'hex'), e.data
    from coordinator.entries e
    where e.log_id = v_log.id and e.seq > v_low
      and (nullif(p_actors, '{}') is null or e.actor = any (p_actors))
      and (v_pattern is null or e.data -> 'event' ->> 'type' ~ v_pattern)
      and (p_since is null or (e.data -> 'event' ->> 'at')::timestamptz >= p_since)
      and (p_until is null or (e.data -> 'event' ->> 'at')::timestamptz < p_until)
    order by e.seq limit p_limit;
end
$$;
comment on function coordinator.audit_list(text, text[], text[], timestamptz, timestamptz, text[], integer) is
  'Read the audit trail of a project, in order. Filters: actors, topics (signal.set, signal.*), and time (from p_since on, before p_until). p_project null: read the trail of projects that do not exist (any more). p_after: array[seq] of the last row read.';

create or replace function coordinator.audit_show(p_project text default null) returns setof coordinator.audit_state
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_log    coordinator.logs := coordinator.audit_find(p_project);
  v_anchor coordinator.audit_anchors;
  v_policy coordinator.audit_policies;
begin
  select * into v_anchor from coordinator.audit_anchors a where a.log_id = v_log.id;
  if p_project is not null then
    select * into v_policy from coordinator.audit_policies s where s.project_id = coordinator.project_id(p_project);
  end if;
  return query
    select p_project, coalesce(v_policy.topics, coordinator.audit_defaults()), v_policy.project_id is null,
           (select e.seq from coordinator.entries e where e.log_id = v_log.id order by e.seq limit 1), coalesce(v_log.last_seq, 0),
           coalesce(v_log.count, 0), coordinator.epoch_text(v_log.epoch), encode(coordinator.audit_last(v_log.id), 'hex'),
           v_anchor.seq, encode(v_anchor.hash, 'hex'), c.copied_at,
           greatest(0, (select h.last_seq from coordinator.event_chunks h order by h.first_seq desc limit 1)
                       - coalesce((c.late ->> p_project)::bigint, c.seq))
    from coordinator.audit_cursor c;
end
$$;
comment on function coordinator.audit_show(text) is
  'Show the state of an audit trail: its topics, its head (last_seq, epoch and hash), the anchor after which its chain begins, and the number of events that are not copied yet. p_project null: the trail of projects that do not exist.';

create or replace function coordinator.audit_verify(p_project text default null, p_after bigint default null, p_hash text default null, p_limit integer default 1000)
returns table (checked integer, seq bigint, hash text, fault text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
  v_log    coordinator.logs := coordinator.audit_find(p_project);
  v_anchor coordinator.audit_anchors;
  v_hash   bytea;
  v_next   bigint := p_after + 1;
  v_entry  record;
begin
  perform coordinator.check_page(p_limit);
  if p_hash is not null and p_hash !~ '^[0-9a-f]{64}$' then
    raise exception using errcode = 'ZC103', message = format('invalid hash "%s"', left(p_hash, 100)), hint = 'Give 64 hexadecimal digits, as the previous call returned them.';
  end if;
  v_hash := decode(p_hash, 'hex');
  if p_after is null then
    select * into v_anchor from coordinator.audit_anchors a where a.log_id = v_log.id;
    v_hash := v_anchor.hash;
    v_next := v_anchor.seq + 1;
  end if;
  checked := 0;
  seq := coalesce(v_next - 1, 0);
  for v_entry in
    select e.seq, e.epoch, e.data::text as text, e.hash from coordinator.entries e
    where e.log_id = v_log.id and e.seq >= coalesce(v_next, 0) and (e.hash is not null or v_next is not null) order by e.seq limit p_limit
  loop
    fault := case
      when v_entry.seq <> v_next                                                               then format('entry %s is missing', v_next)
      when v_entry.hash is distinct from coordinator.audit_hash(v_hash, v_entry.text)          then format('entry %s or an earlier one was changed', v_entry.seq)
      when starts_with(v_entry.text, '{"entry": ' || v_entry.seq || ', "epoch": "' || coordinator.epoch_text(v_entry.epoch) || '"') is not true
                                                                                               then format('entry %s is out of place', v_entry.seq)
    end;
    exit when fault is not null;
    v_hash := v_entry.hash;
    seq := v_entry.seq;
    v_next := v_entry.seq + 1;
    checked := checked + 1;
  end loop;
  if fault is null and checked < p_limit and seq < v_log.last_seq and v_hash is not null then
    fault := format('entry %s is missing', seq + 1);
  end if;
  hash := encode(v_hash, 'hex');
  return next;
end
$$;
comment on function coordinator.audit_verify(text, bigint, text, integer) is
  'Recompute the hashes of up to p_limit entries of an audit trail, from its anchor on, or after entry p_after, whose hash is p_hash. Return the number of valid entries, the number and hash of the last of them, and the first fault. Repeat with these values until checked is less than p_limit. "coordinator audit verify" does the same outside the database, and compares an exported head.';

create or replace function coordinator.audit_put(p_project text, p_topics text[], p_actor text) returns setof coordinator.audit_state
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_actor   text := coordinator.actor_name(p_actor);
begin
  perform coordinator.project_hold(v_project);
  if p_topics is null then
    delete from coordinator.audit_policies where project_id = v_project;
  else
    perform coordinator.check_topics(p_topics);
    insert into coordinator.audit_policies (project_id, topics, actor, updated_at)
    values (v_project, p_topics, v_actor, v_now)
    on conflict (project_id) do update
    set topics = excluded.topics, actor = excluded.actor, updated_at = excluded.updated_at;
  end if;
  perform coordinator.event_append(case when p_topics is null then 'audit.reset' else 'audit.set' end, p_project, p_project, v_actor, v_now,
    jsonb_build_object('topics', coalesce(p_topics, coordinator.audit_defaults())));
  return query select * from coordinator.audit_show(p_project);
end
$$;
comment on function coordinator.audit_put(text, text[], text) is
  'Do what audit_set does; topics null: what audit_reset does. Internal.';

create or replace function coordinator.audit_set(p_project text, p_topics text[], p_actor text default null) returns setof coordinator.audit_state
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_topics is null then
    raise exception using errcode = 'ZC101', message = 'no topics are given', hint = 'Give topics such as lock.*, or an empty list: then only audit.* is audited.';
  end if;
  return query select * from coordinator.audit_put(p_project, p_topics, p_actor);
end
$$;
comment on function coordinator.audit_set(text, text[], text) is
  'Choose which events of a project are audited from now on: topics such as lock.broken, lock.* or *. Events of audit.* are always audited, even if no topic is chosen, so the trail says who switched it off. See audit_defaults.';

create or replace function coordinator.audit_reset(p_project text, p_actor text default null) returns setof coordinator.audit_state
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select * from coordinator.audit_put(p_project, null, p_actor);
end
$$;
comment on function coordinator.audit_reset(text, text) is
  'Reset the audited topics of a project to the default.';

create or replace view coordinator.audit_trail with (security_barrier) as
  select p.name as project, e.seq, lpad(to_hex(e.epoch), 8, '0') as epoch, coalesce(e.data -> 'event' ->> 'type', e.data ->> 'action') as action,
         coalesce(e.data -> 'event' ->> 'key', e.data ->> 'subject') as subject, coalesce(e.data -> 'event' -> 'data', e.data -> 'detail') as detail,
         e.actor, coalesce((e.data -> 'event' ->> 'at')::timestamptz, e.created_at) as created_at,
         e.data ->> 'role' as role, e.data ->> 'address' as address, e.data -> 'origin' as origin, encode(e.hash, 'hex') as hash
  from coordinator.logs l
  left join coordinator.projects p on p.id = l.project_id
  join coordinator.entries e on e.log_id = l.id
  where l.kind = 'audit' and (p.id is not null or l.project_id = 0)
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), (select coordinator.projects_visible()) is null)
    and (select has_function_privilege('coordinator.audit_show(text)', 'execute'));
comment on view   coordinator.audit_trail            is 'Who did what, when and from where, in all projects. Only managers and administrators see rows.';
comment on column coordinator.audit_trail.project    is 'Name of the project; null: it does not exist (any more).';
comment on column coordinator.audit_trail.seq        is 'Number within the trail of the project.';
comment on column coordinator.audit_trail.epoch      is 'Epoch in which the entry was copied.';
comment on column coordinator.audit_trail.action     is 'Type of the event.';
comment on column coordinator.audit_trail.subject    is 'Key of the event.';
comment on column coordinator.audit_trail.detail     is 'Data of the event.';
comment on column coordinator.audit_trail.actor      is 'Who did it, according to the caller.';
comment on column coordinator.audit_trail.created_at is 'When it happened.';
comment on column coordinator.audit_trail.role       is 'Database role that logged in.';
comment on column coordinator.audit_trail.address    is 'Address from which the role connected to the database; null: a Unix socket.';
comment on column coordinator.audit_trail.origin     is 'Origin of the call according to the role: a daemon gives token, name and address, or a loop.';
comment on column coordinator.audit_trail.hash       is 'Hash of the entry; null: the entry is older than the hash chain.';

create or replace function coordinator.audit_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select 'coordinator_audit_behind_seconds', '{}'::text[],
           coalesce(coordinator.metric_age((coordinator.event_chunk_after((select seq from coordinator.audit_cursor))).stamped_at), 0);
end
$$;
comment on function coordinator.audit_sample(timestamptz) is
  'Sample the metric of the audit trails. Internal.';
