-- Logs: append-only lists of entries, each under a kind and a key of a project.
--
-- Guarantees
--   Appends number the entries of a log 1, 2, 3, without gaps, in the order in which they commit. A reader that has read up to a number
--   and continues from it misses nothing. A batch is appended completely, or not at all.
--   A number that was popped, cleared, trimmed or deleted is never reused. After a restore, the database may assign numbers again, in
--   another epoch: number and epoch together identify one content for ever. So positions and expectations contain both.
--   The text of an entry's data is stored byte for byte.
--
-- How it works. The header (a row of logs) assigns the numbers: an append updates it first, and keeps its row locked until the commit. So
-- appends to one log commit one after another, and appends to different logs do not block each other. Entries are rows that never change.
--
-- Order of locks: project, session, headers in the order of (kind, key), entries, the event log.
--
-- Deliberately absent: a list of all entries of a project, and entries that change. For data that changes, use a document.

insert into coordinator.event_types (type, key, data, meaning) values
  ('log.appended', 'kind/key of the log', '{kind,name,first_seq,last_seq}',      'Entries were appended to a log; name: its key. Read the entries from the log.'),
  ('log.popped',   'kind/key of the log', '{kind,name,first_seq,last_seq}',      'The last entries of a log were popped.'),
  ('log.cleared',  'kind/key of the log', '{kind,name,last_seq}',                'All entries of a log were deleted.'),
  ('log.deleted',  'kind/key of the log', '{kind,name,last_seq}',                'A log was deleted.'),
  ('log.kept',     'kind/key of the log', '{kind,name,first_seq,last_seq,kept}', 'Entries were exempted from retention, or are no longer exempt; first_seq null: the whole log.');

insert into coordinator.rights (function, role) values
  ('log_list',   'reader'),
  ('log_read',   'reader'),
  ('log_show',   'reader'),
  ('log_append', 'agent'),
  ('log_clear',  'agent'),
  ('log_delete', 'agent'),
  ('log_keep',   'agent'),
  ('log_pop',    'agent');

insert into coordinator.transaction_verbs (function, part, entered_by) values
  ('log_append', 'write', 'log_enter'),
  ('log_clear',  'write', 'log_enter'),
  ('log_delete', 'write', 'log_enter'); -- not log_pop: jsonb may not be able to represent what it returns

insert into coordinator.limits (name, value, unit, meaning) values
  ('log_entry',       1048576, 'bytes',   'Data of a log entry, as text.'),
  ('log_batch',       1000,    'entries', 'Entries per append.'),
  ('log_batch_bytes', 4194304, 'bytes',   'Total size of entries per append, as text.'),
  ('log_body',        4325376, 'bytes',   'Body of a request that appends to a log.');

create or replace view coordinator.logs_live with (security_barrier) as
  select p.name as project, l.kind, l.key, l.first_seq, l.last_seq, l.count, lpad(to_hex(l.epoch), 8, '0') as epoch, l.kept, l.updated_at
  from coordinator.logs l join coordinator.projects p on p.id = l.project_id
  where not l.deleted and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.logs_live            is 'Logs of each project, without their entries.';
comment on column coordinator.logs_live.project    is 'Name of the project.';
comment on column coordinator.logs_live.kind       is 'Kind of its entries: message, step, observation, audit, or a kind chosen by callers.';
comment on column coordinator.logs_live.key        is 'Key, unique within the kind.';
comment on column coordinator.logs_live.first_seq  is 'Number of the first entry; lower entries are gone, except kept ones.';
comment on column coordinator.logs_live.last_seq   is 'Last number given; p_expect is compared with it.';
comment on column coordinator.logs_live.count      is 'Number of entries.';
comment on column coordinator.logs_live.epoch      is 'Epoch in which last_seq was given.';
comment on column coordinator.logs_live.kept       is 'True: all its entries are exempt from retention.';
comment on column coordinator.logs_live.updated_at is 'When it was last appended to or changed.';

create or replace view coordinator.entries_live with (security_barrier) as
  select p.name as project, l.kind, l.key, e.seq, lpad(to_hex(e.epoch), 8, '0') as epoch, e.uid, e.role, e.tokens, e.needs_seq as needs,
         e.kept, e.actor, e.created_at, e.data, e.raw
  from coordinator.logs l
  join coordinator.projects p on p.id = l.project_id
  join coordinator.entries e on e.log_id = l.id
  where not l.deleted and l.kind <> 'audit' and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.entries_live            is 'Entries of all logs except audit trails. Filter by kind and key; otherwise the whole table is read.';
comment on column coordinator.entries_live.project    is 'Name of the project.';
comment on column coordinator.entries_live.kind       is 'Kind of the log.';
comment on column coordinator.entries_live.key        is 'Key of the log.';
comment on column coordinator.entries_live.seq        is 'Number within the log.';
comment on column coordinator.entries_live.epoch      is 'Epoch in which it was written.';
comment on column coordinator.entries_live.uid        is 'Unique id chosen by the caller; null: none.';
comment on column coordinator.entries_live.role       is 'Role of its author in a conversation; null: not given.';
comment on column coordinator.entries_live.tokens     is 'Number of model tokens; null: unknown.';
comment on column coordinator.entries_live.needs      is 'Earliest entry without which it is of no use; null: none.';
comment on column coordinator.entries_live.kept       is 'True: exempt from retention.';
comment on column coordinator.entries_live.actor      is 'Who appended it.';
comment on column coordinator.entries_live.created_at is 'When it was appended.';
comment on column coordinator.entries_live.data       is 'The content. U+FFFD replaces NUL and lone surrogates, so that SQL can read it.';
comment on column coordinator.entries_live.raw        is 'Exact text if it differs from data; otherwise null.';

create or replace function coordinator.log_missing(p_project text, p_kind text, p_key text) returns void
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.name_missing('ZC216', p_project, 'log', left(p_kind || '/' || p_key, 200), array(
    select l.kind || '/' || l.key from coordinator.logs l
    where l.project_id = coordinator.project_id(p_project) and l.kind = p_kind and not l.deleted order by l.key limit 1000),
    'The first append creates a log.')
$$;
comment on function coordinator.log_missing(text, text, text) is
  'Raise ZC216 for a log that does not exist, and suggest a similar one. Internal.';

create or replace function coordinator.log_find(p_project text, p_kind text, p_key text) returns coordinator.logs
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_log     coordinator.logs;
begin
  perform coordinator.check_kind(p_kind);
  perform coordinator.check_key('the key', p_key);
  if p_kind = 'audit' then
    raise exception using errcode = '42501', message = 'readers of the project may not read logs of kind "audit"',
      hint = 'Managers read them with audit_list, or "coordinator audit list".';
  end if;
  select * into v_log from coordinator.logs l where l.project_id = v_project and l.kind = p_kind and l.key = p_key and not l.deleted;
  if not found then
    perform coordinator.log_missing(p_project, p_kind, p_key);
  end if;
  return v_log;
end
$$;
comment on function coordinator.log_find(text, text, text) is
  'Return the header of a log. ZC216: there is no such log. 42501: it is an audit trail. Internal.';

create or replace function coordinator.log_conflict(
  p_kind text, p_key text, p_expect bigint, p_epoch text, p_last_seq bigint, p_present integer) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'ZC301',
    message = case when p_last_seq is null then format('there is no log "%s" of kind "%s", and entry %s was expected', p_key, p_kind, p_expect)
                   when p_expect = 0 then format('log "%s" of kind "%s" exists, up to entry %s', p_key, p_kind, p_last_seq)
                   else format('the last number of log "%s" is %s of epoch %s, not %s', p_key, p_last_seq, coordinator.epoch_text(p_present),
                               concat_ws(' of epoch ', p_expect, p_epoch)) end,
    detail = jsonb_build_object('last_seq', coalesce(p_last_seq, 0), 'epoch', coordinator.epoch_text(p_present))::text,
    hint = case when p_last_seq is null
                then 'Expect 0 to create it. If this number was read, the log has been deleted, or the database has been restored to an earlier state.'
                when p_expect >= p_last_seq and p_expect > 0
                then 'Read the log and decide again. If the expected number was read from this log, the database has been restored to an earlier state, or this server is no longer the primary.'
                else 'Read what is there and decide again; expect 0 for a log that must not exist.' end;
end
$$;
comment on function coordinator.log_conflict(text, text, bigint, text, bigint, integer) is
  'Raise ZC301: the last number of a log is not the expected one; p_last_seq is null if there is no such log. Internal.';

create or replace function coordinator.log_check_writer(p_kind text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_kind(p_kind);
  if p_kind = 'audit' then
    raise exception using errcode = '42501', message = 'only the product may write logs of kind "audit"', hint = 'Use another kind.';
  end if;
end
$$;
comment on function coordinator.log_check_writer(text) is
  'Reject (42501) a change to the log of audits. Internal.';

create or replace function coordinator.log_hold(
  p_project text, p_kind text, p_key text, p_expect bigint, p_epoch text, p_changes boolean default true) returns coordinator.logs
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_expected integer := coordinator.epoch_given(p_epoch);
  v_log      coordinator.logs;
begin
  perform coordinator.log_check_writer(p_kind);
  perform coordinator.check_key('the key', p_key);
  select * into v_log from coordinator.logs l
  where l.project_id = v_project and l.kind = p_kind and l.key = p_key and not l.deleted for no key update;
  if not found then
    perform coordinator.log_missing(p_project, p_kind, p_key);
  elsif p_expect <> v_log.last_seq or p_expect > 0 and v_expected <> v_log.epoch then
    perform coordinator.log_conflict(p_kind, p_key, p_expect, p_epoch, v_log.last_seq, v_log.epoch);
  end if;
  if p_changes and v_log.session_id is not null then
    perform coordinator.session_continue(v_log.session_id, coordinator.now_utc());
  end if;
  return v_log;
end
$$;
comment on function coordinator.log_hold(text, text, text, bigint, text, boolean) is
  'Return the header of a log, locked until the end of the transaction. ZC216: there is no such log. ZC301: its last number is not p_expect, or not of p_epoch. p_changes: ZC332 if its session is archived. No event. Internal.';

create or replace function coordinator.log_enter(p_project_id bigint, p_parts jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_log record;
begin
  -- The function that receives a malformed part rejects it.
  for v_log in
    select distinct p ->> 'kind' collate "C" as kind, p ->> 'key' collate "C" as key from jsonb_array_elements(p_parts) p
    where p ->> 'kind' ~ '^[a-z][a-z0-9_-]{0,35}$' and length(p ->> 'key') between 1 and 512 order by 1, 2
  loop
    loop
      perform from coordinator.logs l where l.project_id = p_project_id and l.kind = v_log.kind and l.key = v_log.key for no key update;
      exit when found;
      -- There is no row to lock. So insert and delete one: other transactions that want to insert theirs then wait.
      insert into coordinator.logs (project_id, kind, key, epoch, updated_at)
      values (p_project_id, v_log.kind, v_log.key, 0, coordinator.now_utc()) on conflict do nothing;
      if found then
        delete from coordinator.logs l where l.project_id = p_project_id and l.kind = v_log.kind and l.key = v_log.key;
        exit;
      end if;
    end loop;
  end loop;
end
$$;
comment on function coordinator.log_enter(bigint, jsonb) is
  'Take the locks of all parts of a transaction that concern logs: their headers in byte order of kind and key; absent ones stay absent for others. No event. Internal.';

create or replace function coordinator.log_show(p_project text, p_kind text, p_key text)
returns setof coordinator.logs_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_log coordinator.logs := coordinator.log_find(p_project, p_kind, p_key);
begin
  return query select p_project, v_log.kind, v_log.key, v_log.first_seq, v_log.last_seq, v_log.count, coordinator.epoch_text(v_log.epoch),
    v_log.kept, v_log.updated_at;
end
$$;
comment on function coordinator.log_show(text, text, text) is
  'Show the header of a log: the numbers of its entries, and the epoch of the last one. ZC216: there is no such log.';

create or replace function coordinator.log_list(
  p_project text, p_kind text default null, p_prefix text default '', p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.logs_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  if p_kind is not null then
    perform coordinator.check_kind(p_kind);
  end if;
  if coalesce(p_prefix, '') <> '' then
    perform coordinator.check_text('the prefix', p_prefix);
  end if;
  perform coordinator.check_page(p_limit, p_after, '{text,text}');
  if p_kind is not null then -- a separate statement, so that the prefix bounds the index scan
    return query
      select p_project, l.kind, l.key, l.first_seq, l.last_seq, l.count, coordinator.epoch_text(l.epoch), l.kept, l.updated_at
      from coordinator.logs l
      where l.project_id = v_project and l.kind = p_kind
        -- In byte order: from the prefix up to the prefix with the greatest character appended.
        and l.key >= coalesce(p_prefix, '') and l.key < coalesce(p_prefix, '') || U&'\+10FFFF'
        and (l.kind, l.key) > (coalesce(p_after[1], ''), coalesce(p_after[2], '')) and not l.deleted
      order by l.key limit p_limit;
  else
    return query
      select p_project, l.kind, l.key, l.first_seq, l.last_seq, l.count, coordinator.epoch_text(l.epoch), l.kept, l.updated_at
      from coordinator.logs l
      where l.project_id = v_project and (l.kind, l.key) > (coalesce(p_after[1], ''), coalesce(p_after[2], ''))
        and l.key >= coalesce(p_prefix, '') and l.key < coalesce(p_prefix, '') || U&'\+10FFFF' and not l.deleted
      order by l.kind, l.key limit p_limit;
  end if;
end
$$;
comment on function coordinator.log_list(text, text, text, text[], integer) is
  'List the logs of a project whose keys begin with p_prefix, of one kind or of all, by kind and key in byte order. p_after: array[kind, key] of the last row read.';
