-- Reading a log: by page, from the end, as of an instant, and from a position.

create or replace function coordinator.log_seq_at(p_log coordinator.logs, p_at timestamptz) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_low   bigint := 0; -- at or before the instant; 0: no entry is
  v_high  bigint := p_log.last_seq;
  v_mid   bigint;
  v_entry record;
begin
  while v_low < v_high loop
    v_mid := (v_low + v_high + 1) / 2;
    select e.seq, e.created_at into v_entry from coordinator.entries e
    where e.log_id = p_log.id and e.seq between v_mid and v_high order by e.seq limit 1;
    if not found or v_entry.created_at > p_at then
      v_high := v_mid - 1;
    else
      v_low := v_entry.seq;
    end if;
  end loop;
  return v_low;
end
$$;
comment on function coordinator.log_seq_at(coordinator.logs, timestamptz) is
  'Return the number of the last entry that was appended up to an instant; 0: none. Entries are in the order of time. Internal.';

create or replace function coordinator.log_check_position(p_log coordinator.logs, p_after text[]) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_seq   bigint := p_after[2]::bigint;
  v_epoch integer := coordinator.epoch_given(nullif(p_after[1], ''));
  v_there integer;
begin
  -- The epoch in which the number was assigned, as far as the entries show: that of the entry or, if it is gone, of the next one.
  if v_seq > 0 and v_seq <= p_log.last_seq then
    select e.epoch into v_there from coordinator.entries e where e.log_id = p_log.id and e.seq >= v_seq order by e.seq limit 1;
    v_there := coalesce(v_there, p_log.epoch);
  end if;
  if v_seq > p_log.last_seq and pg_is_in_recovery() then
    perform coordinator.refuse_behind(concat_ws('.', nullif(p_after[1], ''), v_seq)); -- not replayed yet: the present primary decides
  end if;
  if v_seq < p_log.first_seq - 1 or v_seq > p_log.last_seq or v_seq > 0 and v_epoch is not null and v_epoch <> v_there then
    raise exception using errcode = 'ZC218',
      message = case when v_seq < p_log.first_seq - 1 then format('entries after %s of log "%s" are gone', v_seq, p_log.key)
                     when v_epoch is null then format('log "%s" has no entry %s: its last number is %s', p_log.key, v_seq, p_log.last_seq)
                     -- Stamps have no order: whether their epoch is lost or later, a cursor of an event tells.
                     else format('entry %s does not belong to the current log "%s": the database was restored, or another server has succeeded this one',
                                 concat_ws(' of epoch ', v_seq, nullif(p_after[1], '')), p_log.key) end,
      detail = jsonb_build_object('reset', true, 'first_seq', p_log.first_seq, 'last_seq', p_log.last_seq, 'epoch', coordinator.epoch_text(p_log.epoch))::text,
      hint = 'Read it from the start, without a position.'
             || case when v_epoch is null and v_seq > p_log.last_seq then ' If this entry was read before, the database was restored to an earlier state.' else '' end;
  end if;
  return v_seq;
end
$$;
comment on function coordinator.log_check_position(coordinator.logs, text[]) is
  'Return the number of a position. ZC218: entries after it are gone, or its number may have been reused after a restore. ZC710: this standby has not replayed it. Internal.';

create or replace function coordinator.log_read(
  p_project text, p_kind text, p_key text, p_before bigint default null, p_last integer default null, p_at timestamptz default null,
  p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.log_entry
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- read the index in the order of the numbers, however few rows the planner expects
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_log  coordinator.logs := coordinator.log_find(p_project, p_kind, p_key);
  v_low  bigint := 0;
  v_high bigint := v_log.last_seq;
begin
  perform coordinator.check_page(p_limit, p_after, '{text,number}');
  if p_after is not null then
    v_low := coordinator.log_check_position(v_log, p_after);
  end if;
  if p_before is not null then
    v_high := least(v_high, p_before - 1);
  end if;
  if p_at is not null then
    v_high := least(v_high, coordinator.log_seq_at(v_log, p_at));
    if v_log.first_seq > 1 and v_high < v_log.first_seq and not exists (
        select from coordinator.entries e where e.log_id = v_log.id and e.seq < v_log.first_seq and e.created_at <= p_at) then
      raise exception using errcode = 'ZC218', message = format('the entries that log "%s" had at %s are gone', p_key, p_at),
        detail = jsonb_build_object('first_seq', v_log.first_seq, 'last_seq', v_log.last_seq)::text,
        hint = 'Give a later instant; see "coordinator log show".';
    end if;
  end if;
  if p_last not between 1 and 10000 then
    raise exception using errcode = 'ZC104', message = format('the last %s entries are out of range', p_last), hint = 'Give 1 to 10000.';
  elsif p_last is not null and p_after is null then -- otherwise, a later page would begin at the new end
    select min(n.seq) - 1 into v_low
    from (select e.seq from coordinator.entries e where e.log_id = v_log.id and e.seq <= v_high order by e.seq desc limit p_last) n;
  end if;
  return query
    select e.seq, coordinator.epoch_text(e.epoch), e.uid, e.role, e.tokens, e.needs_seq, e.kept, e.actor, e.created_at,
           coalesce(e.raw::json, e.data)
    from coordinator.entries e
    where e.log_id = v_log.id and e.seq > v_low and e.seq <= v_high
    order by e.seq limit p_limit;
end
$$;
comment on function coordinator.log_read(text, text, text, bigint, integer, timestamptz, text[], integer) is
  'Read entries of a log in the order of their numbers. p_before: only lower numbers; p_last: start with the last of these entries, unless p_after says where to start; p_at: only entries appended up to that instant (entries popped since are missing). p_after: array[epoch, seq] of the last row read. ZC216: there is no such log. ZC218: entries after the position, or from the instant, are gone; read from the start. ZC710: this standby has not replayed the position.';

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_logs', 'log_sample', 'gauge', '{project,kind}', '', 'Logs; kinds beyond the 50 with the most entries are combined as "other".'),
  ('coordinator_log_entries', 'log_sample', 'gauge', '{project,kind}', '', 'Log entries; kinds beyond the 50 with the most entries are combined as "other".');

create or replace function coordinator.log_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_share double precision := coordinator.metric_share('coordinator.logs');
begin
  return query
    with counted as (
      select l.project_id, l.kind, count(*) / v_share as logs, sum(l.count)::double precision / v_share as entries
      from coordinator.logs l tablesample system (100 * v_share) where not l.deleted group by l.project_id, l.kind),
    placed as (
      select c.*, row_number() over (order by c.entries desc, c.project_id, c.kind) as place from counted c),
    shown as materialized (
      select array[coordinator.metric_label(coalesce(p.name, ''), c.place), coordinator.metric_label(c.kind, c.place)] as labels,
             sum(c.logs) as logs, sum(c.entries) as entries
      from placed c left join coordinator.projects p on p.id = c.project_id and c.place <= 50 group by 1)
    select 'coordinator_logs', s.labels, s.logs from shown s
    union all
    select 'coordinator_log_entries', s.labels, s.entries from shown s;
end
$$;
comment on function coordinator.log_sample(timestamptz) is
  'Sample the metrics of logs. Internal.';
