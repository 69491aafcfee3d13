-- Removing entries (pop, clear, delete), and exempting entries from retention (keep).

create or replace function coordinator.log_pop(
  p_project text, p_kind text, p_key text, p_last integer default 1, p_expect bigint default null, p_epoch text default null,
  p_actor text default null)
returns setof coordinator.log_entry
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_actor  text := coordinator.actor_name(p_actor);
  v_log    coordinator.logs;
  v_now    timestamptz;
  v_popped coordinator.log_entry[];
  v_kept   boolean; -- one of them was kept: the entries that it needed may go now
begin
  if p_last is null or p_last not between 1 and 1000 then
    raise exception using errcode = 'ZC104', message = format('the last %s entries are out of range', coalesce(p_last::text, 'null')), hint = 'Give 1 to 1000.';
  end if;
  v_log := coordinator.log_hold(p_project, p_kind, p_key, p_expect, p_epoch);
  with gone as (
    delete from coordinator.entries e
    where e.log_id = v_log.id and e.seq in (
      select n.seq from coordinator.entries n where n.log_id = v_log.id order by n.seq desc limit p_last)
    returning e.*)
  select array_agg(row(g.seq, coordinator.epoch_text(g.epoch), g.uid, g.role, g.tokens, g.needs_seq, g.kept, g.actor, g.created_at,
                       coalesce(g.raw::json, g.data))::coordinator.log_entry order by g.seq), bool_or(g.kept)
  into v_popped, v_kept from gone g;
  if v_popped is null then
    return;
  end if;
  v_now := greatest(v_log.updated_at, coordinator.now_utc());
  update coordinator.logs
  set count = v_log.count - cardinality(v_popped), updated_at = v_now, trim_at = case when v_kept then v_now else v_log.trim_at end,
      trim_from = case when v_kept then 1 else v_log.trim_from end
  where id = v_log.id;
  perform coordinator.event_append('log.popped', p_project, p_kind || '/' || p_key, v_actor, v_now, jsonb_build_object(
    'kind', p_kind, 'name', p_key, 'first_seq', v_popped[1].seq, 'last_seq', v_popped[cardinality(v_popped)].seq));
  return query select (unnest(v_popped)).*;
end
$$;
comment on function coordinator.log_pop(text, text, text, integer, bigint, text, text) is
  'Remove the last entry from a log, or the last p_last entries, and return them in the order of their numbers; no rows: the log is empty. Concurrent callers get different entries. The numbers are not reused. p_expect, p_epoch: as in log_append.';

create or replace function coordinator.log_empty(p_log coordinator.logs, p_kept boolean, p_deleted boolean, p_now timestamptz) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_needed int8multirange := case when not p_kept then coordinator.log_needed(p_log.id) end;
  v_count  bigint;
begin
  delete from coordinator.entries e where e.log_id = p_log.id and (p_kept or not e.kept and not e.seq <@ v_needed);
  get diagnostics v_count = row_count;
  update coordinator.logs
  set first_seq = p_log.last_seq + 1, trim_from = p_log.last_seq + 1, count = p_log.count - v_count, kept = p_log.kept and not p_deleted,
      deleted = p_deleted, updated_at = p_now,
      trim_at = case when p_deleted then p_now + coordinator.retention_age(p_log.project_id, 'document', '*') else p_log.trim_at end
  where id = p_log.id;
  return v_count;
end
$$;
comment on function coordinator.log_empty(coordinator.logs, boolean, boolean, timestamptz) is
  'Delete the entries of a log whose header is locked, and return how many. Kept entries, and the entries that they need, are only deleted with p_kept. p_deleted: hide the header, which keeps the last number until retention deletes it. No event. Internal.';

create or replace function coordinator.log_clear(
  p_project text, p_kind text, p_key text, p_kept boolean default false, p_expect bigint default null, p_epoch text default null,
  p_actor text default null) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_actor text := coordinator.actor_name(p_actor);
  v_kept  boolean := coalesce(p_kept, false);
  v_log   coordinator.logs := coordinator.log_hold(p_project, p_kind, p_key, p_expect, p_epoch);
  v_now   timestamptz := greatest(v_log.updated_at, coordinator.now_utc());
  v_count bigint;
begin
  if v_log.kept and not v_kept then
    return 0;
  end if;
  v_count := coordinator.log_empty(v_log, v_kept, false, v_now);
  perform coordinator.event_append('log.cleared', p_project, p_kind || '/' || p_key, v_actor, v_now,
    jsonb_build_object('kind', p_kind, 'name', p_key, 'last_seq', v_log.last_seq));
  return v_count;
end
$$;
comment on function coordinator.log_clear(text, text, text, boolean, bigint, text, text) is
  'Delete the entries of a log, and return how many. Kept entries (log_keep) and the entries that they need remain; if the whole log is kept, all remain. p_kept: delete kept entries, too. The next entry has the next number. p_expect, p_epoch: as in log_append.';

create or replace function coordinator.log_delete(
  p_project text, p_kind text, p_key text, p_expect bigint default null, p_epoch text default null, p_actor text default null) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_actor text := coordinator.actor_name(p_actor);
  v_log   coordinator.logs := coordinator.log_hold(p_project, p_kind, p_key, p_expect, p_epoch);
  v_now   timestamptz := greatest(v_log.updated_at, coordinator.now_utc());
  v_count bigint := coordinator.log_empty(v_log, true, true, v_now);
begin
  perform coordinator.event_append('log.deleted', p_project, p_kind || '/' || p_key, v_actor, v_now,
    jsonb_build_object('kind', p_kind, 'name', p_key, 'last_seq', v_log.last_seq));
  return v_count;
end
$$;
comment on function coordinator.log_delete(text, text, text, bigint, text, text) is
  'Delete a log, even a kept one, and return how many entries it had. While deleted documents are kept, a new log with the same kind and key continues its numbers. p_expect, p_epoch: as in log_append.';

create or replace function coordinator.log_keep(
  p_project text, p_kind text, p_key text, p_first_seq bigint default null, p_last_seq bigint default null, p_kept boolean default true,
  p_actor text default null) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_actor text := coordinator.actor_name(p_actor);
  v_last  bigint := coalesce(p_last_seq, p_first_seq);
  v_log   coordinator.logs;
  v_now   timestamptz;
  v_count bigint;
begin
  p_kept := coalesce(p_kept, true);
  if p_first_seq is null and v_last is not null or v_last < p_first_seq or v_last - p_first_seq >= 10000 then
    raise exception using errcode = 'ZC104', message = format('entries %s to %s are out of range', coalesce(p_first_seq::text, 'null'), v_last),
      hint = 'Give the first number and the last one, at most 10000 entries; or no numbers, for the whole log.';
  end if;
  v_log := coordinator.log_hold(p_project, p_kind, p_key, null, null, p_changes => false);
  v_now := greatest(v_log.updated_at, coordinator.now_utc());
  if p_first_seq is null then
    v_count := case when v_log.kept <> p_kept then v_log.count else 0 end;
  else
    update coordinator.entries set kept = p_kept where log_id = v_log.id and seq between p_first_seq and v_last and kept <> p_kept;
    get diagnostics v_count = row_count;
  end if;
  if v_count = 0 and (p_first_seq is not null or v_log.kept = p_kept) then
    return 0;
  end if;
  update coordinator.logs
  set kept = case when p_first_seq is null then p_kept else v_log.kept end, trim_at = case when p_kept then v_log.trim_at else v_now end,
      trim_from = case when p_kept then v_log.trim_from else 1 end
  where id = v_log.id;
  perform coordinator.event_append('log.kept', p_project, p_kind || '/' || p_key, v_actor, v_now,
    jsonb_build_object('kind', p_kind, 'name', p_key, 'first_seq', p_first_seq, 'last_seq', v_last, 'kept', p_kept));
  return v_count;
end
$$;
comment on function coordinator.log_keep(text, text, text, bigint, bigint, boolean, text) is
  'Exempt entries from retention: those from p_first_seq to p_last_seq (by default, only the first), or the whole log; with p_kept false, end the exemption. Return how many entries changed.';

create or replace function coordinator.log_prune() returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_logs bigint[];
begin
  -- One index lookup for each project that has logs, however many logs it has.
  with recursive used as (
    (select project_id from coordinator.logs where project_id > 0 order by project_id limit 1)
    union all
    select (select l.project_id from coordinator.logs l where l.project_id > u.project_id order by l.project_id limit 1)
    from used u where u.project_id is not null
  )
  select array(
    select l.id from coordinator.logs l
    where l.project_id in (select u.project_id from used u left join coordinator.projects p on p.id = u.project_id
                           where u.project_id is not null and p.id is null)
    for update skip locked) into v_logs;
  delete from coordinator.entries where log_id = any (v_logs);
  delete from coordinator.logs where id = any (v_logs);
  return cardinality(v_logs);
end
$$;
comment on function coordinator.log_prune() is
  'Delete logs that were appended to while their project was being deleted; returns how many. No events: the project is gone.';

create or replace function coordinator.log_end_project(p_project_id bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from coordinator.logs where project_id = p_project_id order by kind, key for update;
  delete from coordinator.entries where log_id in (select id from coordinator.logs where project_id = p_project_id);
  delete from coordinator.logs where project_id = p_project_id;
end
$$;
comment on function coordinator.log_end_project(bigint) is
  'Delete all logs of a project. No events: the project is deleted. Internal.';
